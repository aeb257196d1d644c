"""Reading a text of any length in constant memory."""

from typing import Final, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from titans_eqx.models import ModelState, TitansLM
from titans_eqx.nn.tree import select
from titans_eqx.sharding.varying import scan

BLOCK_LEN: Final = 512  # tokens read at once; a longer text is read block by block
PADDED_BLOCK_LEN: Final = 32  # the same where some tokens may be padding

_Carry: TypeAlias = tuple[Float[Array, " vocab"], ModelState]


def prefill(
    model: TitansLM,
    tokens: Int[Array, " seq"],
    state: ModelState | None = None,
    *,
    block_len: int = BLOCK_LEN,
) -> tuple[Float[Array, " vocab"], ModelState]:
    """Read tokens and keep only the last prediction and the state.

    Args:
        model: The model.
        tokens: Token ids, at least one.
        state: State of the stream before them; None for a fresh sequence.
        block_len: Tokens read at once. The result does not depend on it; memory does.

    Returns:
        Logits for the token after the last one, and the state after it.

    Raises:
        ValueError: If there is no token.
    """
    n_tokens = tokens.shape[0]
    if n_tokens == 0:
        raise ValueError("prefill needs at least one token, got none.")
    # The remainder comes first, so that the last logits always come from the scan.
    n_blocks = (n_tokens - 1) // block_len
    n_first = n_tokens - n_blocks * block_len
    logits, state = model(tokens[:n_first], state)
    if n_blocks == 0:
        return logits[-1], state

    def read_block(
        carry: _Carry, block: Int[Array, " block_len"]
    ) -> tuple[_Carry, None]:
        logits, state = model(block, carry[1])
        return (logits[-1], state), None

    blocks = tokens[n_first:].reshape(n_blocks, block_len)
    carry, _ = scan(read_block, (logits[-1], state), blocks)
    return carry


def prefill_padded(
    model: TitansLM,
    tokens: Int[Array, " positions"],
    n_tokens: Int[Array, ""],
    state: ModelState | None = None,
    *,
    block_len: int = PADDED_BLOCK_LEN,
) -> tuple[Float[Array, " vocab"], ModelState]:
    """`prefill` of the first `n_tokens`, a number that the compiler does not know.

    So texts of different lengths share one compiled function, or one batch. Whole
    blocks are read at once and the rest of a block token by token.

    Args:
        model: The model.
        tokens: Token ids, then padding, which is never seen by the model's state.
        n_tokens: How many of them are real, at least one.
        state: State of the stream before them; None for a fresh sequence.
        block_len: Tokens read at once. The result does not depend on it.

    Returns:
        Logits for the token after the last real one, and the state after it.
    """
    block_len = min(block_len, tokens.shape[0])
    n_blocks = -(-tokens.shape[0] // block_len)
    padded = jnp.pad(tokens, (0, n_blocks * block_len - tokens.shape[0]))
    state = model.init_state() if state is None else state
    logits = jax.eval_shape(lambda: model.step(tokens[0], state))[0]
    start = (jnp.zeros(logits.shape, logits.dtype), state)

    def read_block(
        carry: _Carry, xs: tuple[Int[Array, " block_len"], Int[Array, ""]]
    ) -> tuple[_Carry, None]:
        block, first = xs
        logits, state = model(block, carry[1])
        is_whole = first + block_len <= n_tokens
        return select(is_whole, (logits[-1], state), carry), None

    def read_token(carry: _Carry, offset: Int[Array, ""]) -> tuple[_Carry, None]:
        position = n_tokens // block_len * block_len + offset
        after = model.step(padded[position], carry[1])
        return select(position < n_tokens, after, carry), None

    blocks = padded.reshape(n_blocks, block_len)
    firsts = jnp.arange(n_blocks, dtype=jnp.int32) * block_len
    carry, _ = scan(read_block, start, (blocks, firsts))
    carry, _ = scan(read_token, carry, jnp.arange(block_len - 1, dtype=jnp.int32))
    return carry
