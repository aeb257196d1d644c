"""A rule over a sequence: token by token, or chunk by chunk.

`scan_tokens` is the definition; decoding runs one token of it, with `step_heads`.
`scan_chunks` is the fast form: equal to it up to rounding, for any length and from any
place in a chunk. What is the same for every rule is written here once: where chunks
begin and end, padding, truncation of the outer gradient, and what the backward pass
computes again.
"""

from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int, PyTree

from titans_eqx.axes import HeadWeights, MemoryWeights
from titans_eqx.memory.affine import (
    AbstractAffineRule,
    memories_between,
    stacked,
    unstacked,
)
from titans_eqx.memory.ahead import TakeIn, maps_chunks, prepare_chunks
from titans_eqx.memory.blocks import (
    at_offset,
    check_gates,
    checked_block_len,
    fold,
    next_chunk,
    scan_blocks,
)
from titans_eqx.memory.inputs import MemoryInputs
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.rule import AbstractRule, AbstractRuleState
from titans_eqx.nn.padding import Padding
from titans_eqx.nn.remat import remat
from titans_eqx.nn.tree import select
from titans_eqx.sharding.varying import scan, select_seldom, vary_like

State = TypeVar("State", bound=AbstractRuleState)


def scan_tokens(
    rule: AbstractRule[State],
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    state: State,
    *,
    initial: MemoryWeights | None = None,
) -> tuple[Float[Array, "seq d"], State]:
    """Write and read a sequence token by token.

    Args:
        rule: The update rule.
        net: Structure of the memory.
        inputs: The tokens.
        state: Memory before the first of them, anywhere in a chunk.
        initial: M_0, needed by rules that decay towards it.

    Returns:
        Reads `y_t`, and the memory after the last token.

    Raises:
        ValueError: If a gate of the rule, or `initial`, is missing.
    """
    check_gates(rule, net, inputs)

    def body(
        carry: tuple[State, Int[Array, ""]], token: MemoryInputs
    ) -> tuple[tuple[State, Int[Array, ""]], Float[Array, " d"]]:
        state, n_chunks = carry
        y, state = _step(rule, net, token, state, initial)
        is_chunk_end = state.chunk_offset == rule.chunk_len
        n_chunks = n_chunks + is_chunk_end.astype(jnp.int32)
        state = select(is_chunk_end, next_chunk(rule, state), state)
        state = rule.outer_gradient.truncate(state, n_chunks, is_chunk_end)
        return (state, n_chunks), y

    start = (state, jnp.zeros((), jnp.int32))
    (state, _), reads = scan(body, start, inputs)
    return reads, state


def step_heads(
    rule: AbstractRule[State],
    net: AbstractMemoryNet,
    tokens: MemoryInputs,
    state: State,
    *,
    initial: HeadWeights,
) -> tuple[Float[Array, "heads d"], State]:
    """`scan_tokens` on one token of several memories, over which `vmap` would map it.

    They stand at the same place of a chunk. Whether it ends here is asked once for all
    of them, so that what the end of a chunk costs is paid there and at no other token.

    Args:
        rule: The update rule.
        net: Structure of each memory.
        tokens: One for each memory.
        state: The memories, stacked.
        initial: M_0 of each.

    Returns:
        Reads, and the memories after the token.

    Raises:
        ValueError: If a gate of the rule is missing.
    """
    check_gates(rule, net, tokens)
    over_heads = jax.vmap(partial(_step, rule, net))
    reads, state = over_heads(tokens, vary_like(state, tokens), initial)
    is_chunk_end = state.chunk_offset[0] == rule.chunk_len
    of_next_chunk = partial(jax.vmap(partial(next_chunk, rule)), state)
    state = select_seldom(is_chunk_end, of_next_chunk, state)
    n_chunks = is_chunk_end.astype(jnp.int32)
    return reads, rule.outer_gradient.truncate(state, n_chunks, is_chunk_end)


def _step(
    rule: AbstractRule[State],
    net: AbstractMemoryNet,
    token: MemoryInputs,
    state: State,
    initial: MemoryWeights | None,
) -> tuple[Float[Array, " d"], State]:
    """The read at a token, and the state after it, before it ends its chunk."""
    y, state = rule.step(net, token, state, initial)
    return y, at_offset(state, state.chunk_offset + 1)


def scan_chunks(
    rule: AbstractRule[State],
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    state: State,
    *,
    initial: MemoryWeights | None = None,
    block_len: int | None = None,
) -> tuple[Float[Array, "seq d"], State]:
    """Write and read a sequence chunk by chunk; see `scan_tokens` and `scan_blocks`."""
    n_tokens = inputs.queries.shape[0]
    block_len = checked_block_len(rule, block_len)
    padding = Padding.aligned(n_tokens, state.chunk_offset % block_len, block_len)
    reads, state = scan_blocks(
        rule,
        net,
        padding.pad(inputs),
        state,
        padding,
        initial=initial,
        block_len=block_len,
    )
    return padding.unpad(reads, n_tokens), state


def scan_aligned(
    rule: AbstractRule[State],
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    state: State,
    padding: Padding,
    *,
    initial: MemoryWeights | None = None,
    block_len: int | None = None,
) -> tuple[Float[Array, "positions d"], State]:
    """`scan_chunks` on positions that are aligned with the chunks.

    Args:
        rule: The update rule.
        net: Structure of the memory.
        inputs: The first position is the first of a chunk; padding may hold anything
            finite.
        state: Memory before the first real token.
        padding: Which positions are real.
        initial: M_0, needed by rules that decay towards it.
        block_len: Of the blocks in which what is no whole chunk is taken in.

    Returns:
        Reads (meaningless at padding), and the memory after the last real token.

    Raises:
        ValueError: If a gate of the rule, or `initial`, is missing, there is no token,
            or `block_len` does not divide the chunk length.
    """
    check_gates(rule, net, inputs)
    length, chunk_len = padding.length, rule.chunk_len
    if length == 0:
        raise ValueError("a memory needs at least one token, got none.")
    block_len = checked_block_len(rule, block_len)
    # Only a last, unfinished chunk needs the general form if nothing is padding.
    n_whole = length // chunk_len * chunk_len if padding.is_none else 0
    parts = []
    if n_whole > 0:
        whole = jax.tree.map(lambda x: x[:n_whole], inputs)
        reads, state = _whole_chunks(rule, net, whole, state, padding, initial)
        parts.append(reads)
    if n_whole < length:
        n_rest = length - n_whole
        n_added = -n_rest % block_len
        rest = jax.tree.map(
            lambda x: jnp.pad(x[n_whole:], [(0, n_added), (0, 0)]), inputs
        )
        rest_padding = Padding(
            start=padding.start - n_whole,
            stop=jnp.minimum(padding.stop - n_whole, n_rest),
            length=n_rest + n_added,
            is_none=False,
        )
        reads, state = scan_blocks(
            rule,
            net,
            rest,
            state,
            rest_padding,
            initial=initial,
            block_len=block_len,
        )
        parts.append(reads[:n_rest])
    return jnp.concatenate(parts), state


def _whole_chunks(
    rule: AbstractRule[State],
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    state: State,
    padding: Padding,
    initial: MemoryWeights | None,
) -> tuple[Float[Array, "positions d"], State]:
    """Whole chunks from the start of one: a state between them is what they carry."""
    chunks = fold(inputs, rule.chunk_len)
    n_chunks = chunks.keys.shape[0]
    is_real = jnp.ones((n_chunks, rule.chunk_len), bool)
    chunks, take_in = prepare_chunks(rule, net, chunks, is_real, initial)
    carry = rule.end_chunk(state)
    if maps_chunks(rule, carry, n_chunks):
        reads, carry = _side_by_side(rule, net, chunks, take_in, carry)
        return rearrange(reads, "n chunk d -> (n chunk) d"), rule.start_chunk(carry)

    @remat
    def body(
        carry: PyTree[Array], xs: tuple[PyTree[Array], Int[Array, ""]]
    ) -> tuple[PyTree[Array], Float[Array, "chunk d"]]:
        chunk, n_chunks = xs
        reads, state = take_in(chunk, rule.start_chunk(carry))
        carry = rule.end_chunk(state)
        is_chunk_end = jnp.ones((), bool)
        return rule.outer_gradient.truncate(carry, n_chunks, is_chunk_end), reads

    numbers = jnp.arange(1, n_chunks + 1, dtype=jnp.int32)
    numbers = numbers - padding.start // rule.chunk_len
    carry, reads = scan(body, carry, (chunks, numbers))
    return rearrange(reads, "n chunk d -> (n chunk) d"), rule.start_chunk(carry)


def _side_by_side(
    rule: AbstractAffineRule[State],
    net: AbstractMemoryNet,
    chunks: PyTree[Array],
    take_in: TakeIn[State],
    carry: PyTree[Float[Array, "d_in d"]],
) -> tuple[Float[Array, "n_chunks chunk d"], PyTree[Float[Array, "d_in d"]]]:
    """All chunks at once, since the memory before each is found without the reads."""

    @partial(remat, in_loop=False)
    def memories(chunks: PyTree[Array], start: Array) -> Array:
        maps = jax.vmap(partial(rule.chunk_map, net))(chunks)
        return memories_between(start, maps)

    @partial(remat, in_loop=False)
    def read(chunk: PyTree[Array], rows: Float[Array, "rows d"]) -> Array:
        reads, _ = take_in(chunk, rule.start_chunk(unstacked(rows, carry)))
        return reads

    between = memories(chunks, stacked(carry))
    return jax.vmap(read)(chunks, between[:-1]), unstacked(between[-1], carry)
