"""A sequence taken in blocks: the general form of `scan.py`.

A block is a chunk or a part of one. Any of its positions may be padding, and a document
may start with it.
"""

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, PyTree

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.ahead import prepare_chunks
from titans_eqx.memory.inputs import MemoryInputs
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.rule import AbstractRule, AbstractRuleState
from titans_eqx.nn.documents import Documents, Layout
from titans_eqx.nn.padding import Padding
from titans_eqx.nn.remat import remat
from titans_eqx.nn.tree import select
from titans_eqx.sharding.varying import scan, vary_like

State = TypeVar("State", bound=AbstractRuleState)


class Blocks(eqx.Module):
    """What a scan over blocks is told of each; a leading axis of blocks."""

    is_full: Bool[Array, " n_blocks"]  # a chunk ends with the block
    n_chunks: Int[Array, " n_blocks"]  # finished by then
    is_start: Bool[Array, " n_blocks"] | None  # a document starts with the block


def scan_blocks(
    rule: AbstractRule[State],
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    state: State,
    padding: Padding,
    *,
    initial: MemoryWeights | None = None,
    block_len: int | None = None,
) -> tuple[Float[Array, "positions d"], State]:
    """`scan_chunks` on positions aligned with blocks, of which any may be padding.

    Blocks shorter than a chunk spare a stream in short parts the work of a whole chunk
    for each; the result is the same.

    Args:
        rule: The update rule.
        net: Structure of the memory.
        inputs: The first position is the first of a block.
        state: Memory before the first real token, anywhere in a chunk.
        padding: Which positions are real.
        initial: M_0, needed by rules that decay towards it.
        block_len: Tokens taken in at once, a divisor of the chunk length; default that.

    Returns:
        See `scan_aligned`.

    Raises:
        ValueError: If a gate of the rule, or `initial`, is missing, or `block_len` does
            not divide the chunk length.
    """
    check_gates(rule, net, inputs)
    chunk_len, is_real = rule.chunk_len, padding.is_real()
    block_len = checked_block_len(rule, block_len)
    masked = inputs.mask(rule.gate_specs(net), is_real)
    blocks, is_real = fold((masked, is_real), block_len)
    ends = jnp.arange(1, len(is_real) + 1, dtype=jnp.int32) * block_len
    # Counted from the start of the chunk in which the call began.
    offset_at_start = (state.chunk_offset + jnp.minimum(padding.start, 0)) % chunk_len
    n_read = offset_at_start + ends - padding.start
    is_full = (
        (ends > padding.start) & (ends <= padding.stop) & (n_read % chunk_len == 0)
    )
    xs = Blocks(is_full, n_read // chunk_len, None)
    offset = (state.chunk_offset + padding.n_real) % chunk_len
    reads, state = _scan_blocks(rule, net, (blocks, is_real), xs, state, initial, None)
    return rearrange(reads, "n block d -> (n block) d"), at_offset(state, offset)


def scan_documents(
    rule: AbstractRule[State],
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    state: State,
    fresh: State,
    documents: Documents,
    layout: Layout,
    *,
    initial: MemoryWeights | None = None,
) -> tuple[Float[Array, "seq d"], State]:
    """`scan_chunks` on a row of documents, each of which starts anew.

    Args:
        rule: The update rule.
        net: Structure of the memory.
        inputs: The tokens of the row.
        state: Memory before the first of them, anywhere in a chunk.
        fresh: Memory before the first token of every document but document 0.
        documents: Where documents start.
        layout: Of them, in units that divide the chunk length.
        initial: M_0, needed by rules that decay towards it.

    Returns:
        Reads `y_t`, and the memory after the last token.

    Raises:
        ValueError: If a gate of the rule, or `initial`, is missing.
    """
    check_gates(rule, net, inputs)
    chunk_len, unit, padding = rule.chunk_len, layout.unit, layout.padding
    is_real, specs = layout.is_real, rule.gate_specs(net)
    blocks = jax.vmap(lambda block, is_real: block.mask(specs, is_real))(
        layout.pad(inputs), is_real
    )
    # Counted from the start of the chunk in which the document began.
    n_read = jnp.where(layout.is_continued, state.chunk_offset, 0)
    n_read = n_read + unit - padding.start
    is_full = (padding.start < unit) & (padding.stop >= unit)
    is_full &= n_read % chunk_len == 0
    xs = Blocks(is_full, n_read // chunk_len, layout.is_start)
    offset = jnp.where(documents.is_continued, state.chunk_offset, 0)
    offset = (offset + documents.last_len) % chunk_len
    reads, state = _scan_blocks(rule, net, (blocks, is_real), xs, state, initial, fresh)
    return layout.unpad(reads), at_offset(state, offset)


def fold(tree: PyTree[Array], block_len: int) -> PyTree[Array]:
    """A leading axis of chunks or blocks."""
    pattern = "(n block) ... -> n block ..."
    return jax.tree.map(lambda x: rearrange(x, pattern, block=block_len), tree)


def at_offset(state: State, offset: Int[Array, ""]) -> State:
    """The state with another number of tokens read of its chunk."""
    return eqx.tree_at(lambda state: state.chunk_offset, state, offset)


def next_chunk(rule: AbstractRule[State], state: State) -> State:
    """The state at the start of the next chunk, from that at the end of one."""
    return rule.start_chunk(rule.end_chunk(state))


def checked_block_len(rule: AbstractRule, block_len: int | None) -> int:
    """Tokens of a block, by default a chunk.

    Raises:
        ValueError: If a chunk is not a whole number of blocks.
    """
    if block_len is None:
        return rule.chunk_len
    if block_len < 1 or rule.chunk_len % block_len != 0:
        raise ValueError(
            "block_len must divide the rule's chunk_len, got "
            f"block_len={block_len} and chunk_len={rule.chunk_len}."
        )
    return block_len


def check_gates(
    rule: AbstractRule, net: AbstractMemoryNet, inputs: MemoryInputs
) -> None:
    """Refuse inputs without the gates of a rule, or with gates of other sizes.

    Raises:
        ValueError: If one is missing or has another size.
    """
    specs = rule.gate_specs(net)
    names = specs.keys()
    if missing := sorted(names - inputs.gates.keys()):
        raise ValueError(
            f"{type(rule).__name__} needs the gates {', '.join(sorted(names))}, got "
            f"{', '.join(sorted(inputs.gates)) or 'none'}: {', '.join(missing)} is "
            "missing. Add it to MemoryInputs.gates."
        )
    for name, spec in specs.items():
        size = inputs.gates[name].shape[-1]
        if size != spec.size:
            raise ValueError(
                f"{type(rule).__name__} needs {spec.size} values of the gate {name} at "
                f"each token, got {size}. See its gate_specs."
            )


def _scan_blocks(
    rule: AbstractRule[State],
    net: AbstractMemoryNet,
    tokens: tuple[MemoryInputs, Bool[Array, "n_blocks block"]],
    blocks: Blocks,
    state: State,
    initial: MemoryWeights | None,
    fresh: State | None,
) -> tuple[Float[Array, "n_blocks block d"], State]:
    fresh = vary_like(fresh, (tokens, blocks))
    chunks, take_in = prepare_chunks(rule, net, *tokens, initial)

    @remat
    def body(
        state: State, xs: tuple[PyTree[Array], Blocks]
    ) -> tuple[State, Float[Array, "block d"]]:
        chunk, block = xs
        if fresh is not None and block.is_start is not None:
            state = select(block.is_start, fresh, state)
        reads, state = take_in(chunk, state)
        state = select(block.is_full, next_chunk(rule, state), state)
        truncate = rule.outer_gradient.truncate
        return truncate(state, block.n_chunks, block.is_full), reads

    state, reads = scan(body, state, (chunks, blocks))
    return reads, state
