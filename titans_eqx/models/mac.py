"""MAC, memory as context (Titans, section 4.1, Eqs. 21 to 25).

The sequence is read in segments. At each token of a segment:

    h = M_s(q(x))                       retrieve; M_s: at the segment's start   (21)
    y = Attn([p | h_{<=i} | x_{<=i}])   attend                             (22, 23)
    M_i = write(M_{i-1}, y_i)           write                                  (24)
    o = gate(y, M_i(q(y)))              read and gate                          (25)

Deviation: taken literally, the paper leaks twice. Token `i` attends to `h_j` of later
tokens, and the last read uses the memory after the whole segment. Here a token attends
to the `h_j` of its past only, and reads the running memory; at the last token of a
segment both agree with the paper.

Reading: "y" is written as `norm(x + y)`, the stream after attention, so that the memory
sees the token itself as well as what attention made of it.
"""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, PyTree

from titans_eqx.attention import SegmentAttention, SegmentCache
from titans_eqx.memory import AbstractMemory, MemoryStats
from titans_eqx.models.gate import MemoryGate
from titans_eqx.models.mixer import AbstractMemoryMixer
from titans_eqx.models.units import read_units
from titans_eqx.nn.documents import Documents
from titans_eqx.nn.padding import Padding
from titans_eqx.nn.remat import remat
from titans_eqx.nn.tree import select
from titans_eqx.sharding.varying import scan, select_seldom, vary_like


class MACState(eqx.Module):
    """Where a MAC layer stands in its stream."""

    memory: PyTree[Array]
    snapshot: PyTree[Array]  # of the memory, at the segment's start
    query_state: PyTree[Array]  # of the retrieval
    cache: SegmentCache
    segment_offset: Int[Array, ""]  # tokens read of the segment, in [0, segment_len)


class MemoryAsContext(AbstractMemoryMixer[MACState]):
    """The MAC mixer."""

    memory: AbstractMemory
    attention: SegmentAttention
    write_norm: eqx.nn.RMSNorm
    gate: MemoryGate

    def __init__(
        self,
        memory: AbstractMemory,
        attention: SegmentAttention,
        write_norm: eqx.nn.RMSNorm,
        gate: MemoryGate,
    ) -> None:
        """Put the parts together.

        Raises:
            ValueError: If a segment is not a whole number of chunks.
        """
        if attention.segment_len % memory.chunk_len != 0:
            raise ValueError(
                "attention.segment_len must be a multiple of memory.chunk_len, got "
                f"segment_len={attention.segment_len} and chunk_len={memory.chunk_len}."
            )
        self.memory = memory
        self.attention = attention
        self.write_norm = write_norm
        self.gate = gate

    def init_state(self) -> MACState:
        """A fresh memory and an empty segment."""
        memory = self.memory.init_state()
        return MACState(
            memory=memory,
            snapshot=self.memory.snapshot(memory),
            query_state=self.memory.init_query_state(),
            cache=self.attention.init_state(),
            segment_offset=jnp.zeros((), jnp.int32),
        )

    def __call__(
        self,
        x: Float[Array, "seq d_model"],
        state: MACState | None,
        documents: Documents | None = None,
    ) -> tuple[Float[Array, "seq d_model"], MACState]:
        """See `AbstractMixer.__call__`."""
        if documents is not None:
            return self._documents(x, state, documents)
        n_tokens, segment_len = x.shape[0], self.attention.segment_len
        if state is not None:
            padding = Padding.aligned(n_tokens, state.segment_offset, segment_len)
            y, state = self._segments(padding.pad(x), state, padding)
            return padding.unpad(y, n_tokens), state
        return read_units(self._segments, x, self.init_state(), segment_len)

    def step(
        self, x: Float[Array, " d_model"], state: MACState
    ) -> tuple[Float[Array, " d_model"], MACState]:
        """See `AbstractMixer.step`."""
        y, cache, query_state = self._attend(x, state)
        m, memory = self.memory.step(self.write_norm(x + y), state.memory)
        offset = state.segment_offset + 1
        is_full = offset == self.attention.segment_len
        snapshot = partial(self.memory.snapshot, memory)
        before = vary_like(state.snapshot, memory)
        return self.gate(y, m), MACState(
            memory=memory,
            snapshot=select_seldom(is_full, snapshot, before),
            query_state=query_state,
            cache=cache,
            segment_offset=jnp.where(is_full, 0, offset),
        )

    def probe(self, x: Float[Array, " d_model"], state: MACState) -> MemoryStats:
        """See `AbstractMemoryMixer.probe`."""
        y, _, _ = self._attend(x, state)
        return self.memory.probe(self.write_norm(x + y), state.memory)

    def forget(self, state: MACState) -> MACState:
        """See `AbstractMemoryMixer.forget`."""
        fresh = self.init_state()
        return dataclasses.replace(
            fresh, cache=state.cache, segment_offset=state.segment_offset
        )

    def _attend(
        self, x: Float[Array, " d_model"], state: MACState
    ) -> tuple[Float[Array, " d_model"], SegmentCache, PyTree[Array]]:
        """Retrieve and attend at one token."""
        memories, query_state = self.memory.retrieve(
            x[None, :], state.snapshot, state.query_state, Padding.none(1)
        )
        y, cache = self.attention.step(
            x, memories[0], state.cache, state.segment_offset
        )
        return y, cache, query_state

    def _segments(
        self, x: Float[Array, "positions d_model"], state: MACState, padding: Padding
    ) -> tuple[Float[Array, "positions d_model"], MACState]:
        """Mix positions that are aligned with the segments, one segment at a time."""
        segment_len = self.attention.segment_len

        @remat
        def body(
            state: MACState,
            segment: tuple[Float[Array, "segment d_model"], Int[Array, ""]],
        ) -> tuple[MACState, Float[Array, "segment d_model"]]:
            x, first = segment
            return self._segment(x, state, padding.block(first, segment_len))

        segments = rearrange(x, "(n segment) d -> n segment d", segment=segment_len)
        firsts = jnp.arange(len(segments), dtype=jnp.int32) * segment_len
        state, y = scan(body, state, (segments, firsts))
        return rearrange(y, "n segment d -> (n segment) d"), state

    def _documents(
        self,
        x: Float[Array, "seq d_model"],
        state: MACState | None,
        documents: Documents,
    ) -> tuple[Float[Array, "seq d_model"], MACState]:
        """Mix a row of documents, each in segments of its own."""
        layout = documents.layout(
            self.attention.segment_len, None if state is None else state.segment_offset
        )
        fresh = vary_like(self.init_state(), x)

        @remat
        def body(
            state: MACState,
            segment: tuple[Float[Array, "segment d_model"], Padding, Bool[Array, ""]],
        ) -> tuple[MACState, Float[Array, "segment d_model"]]:
            x, block, is_start = segment
            return self._segment(x, select(is_start, fresh, state), block)

        segments = layout.pad(x), layout.padding, layout.is_start
        state, y = scan(body, fresh if state is None else state, segments)
        return layout.unpad(y), state

    def _segment(
        self, x: Float[Array, "segment d_model"], state: MACState, block: Padding
    ) -> tuple[MACState, Float[Array, "segment d_model"]]:
        """The state after one segment, and what it is mixed to."""
        # Without padding a segment begins here, where both are equal; naming one
        # spares the backward pass a copy of all weights for each segment.
        running = self.memory.snapshot(state.memory)
        snapshot = running if block.is_none else state.snapshot
        memories, query_state = self.memory.retrieve(
            x, snapshot, state.query_state, block
        )
        y, cache = self.attention(x, memories, state.cache, block)
        written = jax.vmap(self.write_norm)(x + y)
        m, memory = self.memory(written, state.memory, block)
        offset = jnp.where(block.n_real > 0, block.end, state.segment_offset)
        is_full = offset == self.attention.segment_len
        state = MACState(
            memory=memory,
            snapshot=select(is_full, self.memory.snapshot(memory), state.snapshot),
            query_state=query_state,
            cache=cache,
            segment_offset=jnp.where(is_full, 0, offset),
        )
        return state, jax.vmap(self.gate)(y, m)
