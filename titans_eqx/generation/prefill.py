"""Reading a text of any length in constant memory."""

from typing import Final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from titans_eqx.memory.outer_gradient import select
from titans_eqx.models import ModelState, TitansLM
from titans_eqx.sharding.varying import scan

PIECE_LEN: Final = 512  # tokens read at once; a longer text is read piece by piece
SHORT_PIECE_LEN: Final = 32  # the same where some tokens may be padding


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


def prefill_padded(
    model: TitansLM,
    tokens: Int[Array, " slots"],
    n_tokens: Int[Array, ""],
    state: ModelState | None = None,
    *,
    piece_len: int = SHORT_PIECE_LEN,
) -> tuple[Float[Array, " vocab"], ModelState]:
    """`prefill` of the first `n_tokens`, a number that the compiler does not know.

    So texts of different lengths share one compiled function, or one batch. Whole
    pieces are read at once and the rest of a piece token by token.

    Args:
        model: The model.
        tokens: Token ids, then padding, which is never seen by the model's state.
        n_tokens: How many of them are real, at least one.
        state: Where the stream stands; None for a fresh sequence.
        piece_len: Tokens read at once. The result does not depend on it.

    Returns:
        Logits for the token after the last real one, and the state after it.
    """
    piece_len = min(piece_len, tokens.shape[0])
    n_pieces = -(-tokens.shape[0] // piece_len)
    padded = jnp.pad(tokens, (0, n_pieces * piece_len - tokens.shape[0]))
    state = model.init_state() if state is None else state
    logits = jax.eval_shape(lambda: model.step(tokens[0], state))[0]
    start = (jnp.zeros(logits.shape, logits.dtype), state)

    def read_piece(
        carry: tuple[Float[Array, " vocab"], ModelState],
        xs: tuple[Int[Array, " piece"], Int[Array, ""]],
    ) -> tuple[tuple[Float[Array, " vocab"], ModelState], None]:
        piece, first = xs
        logits, state = model(piece, carry[1])
        is_whole = first + piece_len <= n_tokens
        return select(is_whole, (logits[-1], state), carry), None

    def read_token(
        carry: tuple[Float[Array, " vocab"], ModelState], offset: Int[Array, ""]
    ) -> tuple[tuple[Float[Array, " vocab"], ModelState], None]:
        slot = n_tokens // piece_len * piece_len + offset
        after = model.step(padded[slot], carry[1])
        return select(slot < n_tokens, after, carry), None

    pieces = padded.reshape(n_pieces, piece_len)
    firsts = jnp.arange(n_pieces, dtype=jnp.int32) * piece_len
    carry, _ = scan(read_piece, start, (pieces, firsts))
    carry, _ = scan(read_token, carry, jnp.arange(piece_len - 1, dtype=jnp.int32))
    return carry
