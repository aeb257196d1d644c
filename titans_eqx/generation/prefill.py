"""Reading a text of any length in constant memory."""

from typing import Final

from jaxtyping import Array, Float, Int

from titans_eqx.models import ModelState, TitansLM
from titans_eqx.nn.varying import scan

PIECE_LEN: Final = 512  # tokens read at once; a longer text is read piece by piece


def prefill(
    model: TitansLM,
    tokens: Int[Array, " seq"],
    state: ModelState | None = None,
    *,
    piece_len: int = PIECE_LEN,
) -> tuple[Float[Array, " vocab"], ModelState]:
    """Read tokens and keep only the state and the last prediction.

    Args:
        model: The model.
        tokens: Token ids, at least one.
        state: Where the stream stands; None for a fresh sequence.
        piece_len: Tokens read at once. The result does not depend on it; memory does.

    Returns:
        Logits for the token after the last one, and the state after it.

    Raises:
        ValueError: If there is no token.
    """
    n_tokens = tokens.shape[0]
    if n_tokens == 0:
        raise ValueError("prefill needs at least one token, got none.")
    if n_tokens <= piece_len:
        logits, state = model(tokens, state)
        return logits[-1], state

    # The remainder comes first, so that the last logits always come from the scan.
    n_pieces = (n_tokens - 1) // piece_len
    n_first = n_tokens - n_pieces * piece_len
    logits, state = model(tokens[:n_first], state)

    def body(
        carry: tuple[ModelState, Float[Array, " vocab"]], piece: Int[Array, " piece"]
    ) -> tuple[tuple[ModelState, Float[Array, " vocab"]], None]:
        logits, state = model(piece, carry[0])
        return (state, logits[-1]), None

    pieces = tokens[n_first:].reshape(n_pieces, piece_len)
    (state, last), _ = scan(body, (state, logits[-1]), pieces)
    return last, state
