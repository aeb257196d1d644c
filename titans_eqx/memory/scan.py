"""The fast form of the memory: one chunk at a time, in matrix products only.

Between chunks runs a scan whose carry is the weights and the momentum; what happens
inside one is in `chunk.py`. Equal to `scan_tokens` up to rounding, whatever the chunk
length, the phase and the length of the piece.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.outer_gradient import select
from titans_eqx.memory.chunk import Chunk
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.recurrent import decay_target
from titans_eqx.memory.rule import UpdateRule
from titans_eqx.memory.state import MemoryInputs, MemoryState
from titans_eqx.nn.remat import recomputed
from titans_eqx.nn.padding import Span
from titans_eqx.sharding.varying import scan


def scan_chunks(
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    state: MemoryState,
    *,
    chunk_len: int,
    rule: UpdateRule | None = None,
    initial: MemoryWeights | None = None,
) -> tuple[Float[Array, "seq d"], MemoryState]:
    """Write and read a sequence chunk by chunk; same meaning as `scan_tokens`.

    Args:
        net: Structure of the memory.
        inputs: Queries, keys, values and gates of the tokens, any number of them.
        state: Memory before the first of them, at any phase.
        chunk_len: Tokens per anchor.
        rule: Clipping, forgetting, read order and gradient filters; default
            `UpdateRule()`.
        initial: M_0, needed when the rule decays towards it.

    Returns:
        Reads `y_t`, and the memory after the last token.

    Raises:
        ValueError: If `initial` is missing and the rule decays towards it.
    """
    n_tokens = inputs.queries.shape[0]
    span = Span.placed(n_tokens, state.phase, chunk_len)
    reads, state = scan_slots(
        net,
        span.place(inputs),
        span,
        state,
        chunk_len=chunk_len,
        rule=rule,
        initial=initial,
    )
    return span.take(reads, n_tokens), state


def scan_slots(
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    span: Span,
    state: MemoryState,
    *,
    chunk_len: int,
    rule: UpdateRule | None = None,
    initial: MemoryWeights | None = None,
    chunks_read: Int[Array, ""] | None = None,
) -> tuple[Float[Array, "slots d"], MemoryState]:
    """The work of `scan_chunks` on inputs whose slots are aligned with the chunks.

    Args:
        net: Structure of the memory.
        inputs: One row a slot; rows of padding may hold anything finite.
        span: Which slots are real. Its first real slot lies `state.phase` slots into a
            chunk.
        state: Memory before the first real slot.
        chunk_len: Tokens per anchor.
        rule: Clipping, forgetting, read order and gradient filters; default
            `UpdateRule()`.
        initial: M_0, needed when the rule decays towards it.
        chunks_read: Chunks finished by the caller before, for `truncate_every`; default
            0.

    Returns:
        Reads (meaningless at padding), and the memory after the last real slot.

    Raises:
        ValueError: If `initial` is missing and the rule decays towards it.
    """
    rule = rule or UpdateRule()
    chunks = _ChunkScan(
        net, rule, decay_target(rule, initial, state.weights), chunk_len
    )
    if chunks_read is None:
        chunks_read = jnp.zeros((), jnp.int32)
    length = span.length
    if not span.is_whole:
        n_chunks = -(-length // chunk_len)
        padded = Span(span.start, span.stop, n_chunks * chunk_len, is_whole=False)
        inputs = jax.tree.map(lambda x: _pad_rows(x, padded.length - length), inputs)
        reads, state = chunks.padded(inputs, padded, state, chunks_read)
        return reads[:length], state

    # Every slot is real, so the anchor of each whole chunk is the running weights, and
    # only a last, unfinished chunk needs the general form.
    n_whole = length // chunk_len * chunk_len
    reads = []
    if n_whole > 0:
        whole = jax.tree.map(lambda x: x[:n_whole], inputs)
        part, state = chunks.whole(whole, state, chunks_read)
        reads.append(part)
    if n_whole < length:
        rest = jax.tree.map(lambda x: x[n_whole:], inputs)
        rest = jax.tree.map(lambda x: _pad_rows(x, chunk_len - x.shape[0]), rest)
        rest_span = Span.leading(length - n_whole, chunk_len)
        chunks_read = chunks_read + n_whole // chunk_len
        part, state = chunks.padded(rest, rest_span, state, chunks_read)
        reads.append(part[: length - n_whole])
    return jnp.concatenate(reads), state


class _ChunkScan(eqx.Module):
    """What stays the same over all chunks of a call."""

    net: AbstractMemoryNet
    rule: UpdateRule = eqx.field(static=True)
    target: MemoryWeights | None
    chunk_len: int = eqx.field(static=True)

    def whole(
        self, inputs: MemoryInputs, state: MemoryState, chunks_read: Int[Array, ""]
    ) -> tuple[Float[Array, "slots d"], MemoryState]:
        """Whole chunks from a chunk boundary: the weights are their own anchor."""
        n_slots = inputs.queries.shape[0]
        chunks = self.split(inputs, Span.whole(n_slots))
        numbers = chunks_read + _count(n_slots // self.chunk_len)

        @recomputed
        def body(carry, xs):
            weights, momentum = carry
            chunk, number = xs
            reads, weights, momentum = chunk.read_and_write(
                self.net,
                self.rule,
                self.target,
                anchor=weights,
                weights=weights,
                momentum=momentum,
            )
            is_end = jnp.ones((), bool)
            return self.rule.boundary.carry((weights, momentum), number, is_end), reads

        start = (state.weights, state.momentum)
        (weights, momentum), reads = scan(body, start, (chunks, numbers))
        state = MemoryState(
            anchor=weights, weights=weights, momentum=momentum, phase=state.phase
        )
        return reads.reshape(n_slots, -1), state

    def padded(
        self,
        inputs: MemoryInputs,
        span: Span,
        state: MemoryState,
        chunks_read: Int[Array, ""],
    ) -> tuple[Float[Array, "slots d"], MemoryState]:
        """Chunks of which any part may be padding, from any phase."""
        chunks = self.split(inputs, span)
        ends = _count(span.length // self.chunk_len) * self.chunk_len
        is_full = (ends > span.start) & (ends <= span.stop)
        numbers = chunks_read + jnp.cumsum(is_full, dtype=jnp.int32)

        @recomputed
        def body(carry, xs):
            anchor, weights, momentum = carry
            chunk, is_full, number = xs
            reads, weights, momentum = chunk.read_and_write(
                self.net,
                self.rule,
                self.target,
                anchor=anchor,
                weights=weights,
                momentum=momentum,
            )
            weights, momentum = self.rule.boundary.carry(
                (weights, momentum), number, is_full
            )
            return (select(is_full, weights, anchor), weights, momentum), reads

        start = (state.anchor, state.weights, state.momentum)
        carry, reads = scan(body, start, (chunks, is_full, numbers))
        phase = jnp.where(
            span.stop > span.start, span.stop % self.chunk_len, state.phase
        )
        state = MemoryState(*carry, phase=phase)
        return reads.reshape(span.length, -1), state

    def split(self, inputs: MemoryInputs, span: Span) -> Chunk:
        """Inputs and decay factors with a leading axis of chunks."""

        def fold(x: Array) -> Array:
            return x.reshape(-1, self.chunk_len, *x.shape[1:])

        folded, is_real = jax.tree.map(fold, (inputs, span.mask()))
        return jax.vmap(partial(Chunk.prepare, self.rule))(folded, is_real)


def _count(n: int) -> Int[Array, " {n}"]:
    return jnp.arange(1, n + 1, dtype=jnp.int32)


def _pad_rows(x: Array, n: int) -> Array:
    return jnp.pad(x, [(0, n)] + [(0, 0)] * (x.ndim - 1))
