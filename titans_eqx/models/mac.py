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

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from titans_eqx.attention.segmented import SegmentAttention, SegmentCache
from titans_eqx.axes import HeadWeights
from titans_eqx.config import ModelConfig
from titans_eqx.memory.outer_gradient import select
from titans_eqx.memory.layer import NeuralMemory, NeuralMemoryState
from titans_eqx.models.mixer import AbstractMemoryMixer
from titans_eqx.models.gate import StreamGate
from titans_eqx.nn.remat import recomputed
from titans_eqx.nn.padding import Span
from titans_eqx.sharding.varying import scan


class MACState(eqx.Module):
    """Where a MAC layer stands in its stream."""

    memory: NeuralMemoryState
    segment_weights: HeadWeights  # fast weights at the segment's start
    query_inputs: Float[Array, "n_carried d_model"]  # of the retrieval's convolution
    cache: SegmentCache
    phase: Int[Array, ""]  # tokens read in the current segment, in [0, segment_len)


class MemoryAsContext(AbstractMemoryMixer[MACState]):
    """The MAC mixer."""

    memory: NeuralMemory
    attention: SegmentAttention
    write_norm: eqx.nn.RMSNorm
    gate: StreamGate

    segment_len: int = eqx.field(static=True)

    def __init__(self, config: ModelConfig, *, key: PRNGKeyArray) -> None:
        """Build the mixer of one layer.

        Args:
            config: Sizes and options of the model.
            key: Random key.

        Raises:
            ValueError: If a segment is not a whole number of chunks.
        """
        memory_key, attention_key = jr.split(key)
        attention = config.attention
        if attention.segment_len % config.memory.chunk_len != 0:
            raise ValueError(
                "attention.segment_len must be a multiple of memory.chunk_len, got "
                f"segment_len={attention.segment_len} and "
                f"chunk_len={config.memory.chunk_len}."
            )
        self.memory = NeuralMemory(config.d_model, config.memory, key=memory_key)
        self.attention = SegmentAttention(
            config.d_model,
            attention.n_heads,
            attention.n_persistent,
            attention.segment_len,
            attention.rope_base,
            key=attention_key,
        )
        self.write_norm = eqx.nn.RMSNorm(config.d_model, use_bias=False)
        self.gate = StreamGate(config.d_model, config.gate)
        self.segment_len = attention.segment_len

    def init_state(self) -> MACState:
        """A fresh memory and an empty segment."""
        memory = self.memory.init_state()
        return MACState(
            memory=memory,
            segment_weights=memory.memory.weights,
            query_inputs=memory.conv_inputs.query,
            cache=self.attention.init_state(),
            phase=jnp.zeros((), jnp.int32),
        )

    def __call__(
        self, x: Float[Array, "seq d_model"], state: MACState | None
    ) -> tuple[Float[Array, "seq d_model"], MACState]:
        """Mix a piece of a sequence; see `AbstractMixer.__call__`."""
        n_tokens = x.shape[0]
        if state is not None:
            span = Span.placed(n_tokens, state.phase, self.segment_len)
            y, state = self._segments(span.place(x), span, state)
            return span.take(y, n_tokens), state

        # From a segment's start only the last segment can be incomplete.
        state = self.init_state()
        n_whole = n_tokens // self.segment_len * self.segment_len
        parts = []
        if n_whole > 0:
            y, state = self._segments(x[:n_whole], Span.whole(n_whole), state)
            parts.append(y)
        if n_whole < n_tokens:
            span = Span.leading(n_tokens - n_whole, self.segment_len)
            y, state = self._segments(span.place(x[n_whole:]), span, state)
            parts.append(y[: n_tokens - n_whole])
        return jnp.concatenate(parts), state

    def step(
        self, x: Float[Array, " d_model"], state: MACState
    ) -> tuple[Float[Array, " d_model"], MACState]:
        """Mix one token; see `AbstractMixer.step`."""
        y, cache, query_inputs = self._attend(x, state)
        m, memory = self.memory.step(self.write_norm(x + y), state.memory)
        phase = state.phase + 1
        return self.gate(y, m), self._advance(state, memory, query_inputs, cache, phase)

    def memory_view(
        self, x: Float[Array, " d_model"], state: MACState
    ) -> tuple[Float[Array, " d_model"], NeuralMemoryState]:
        """See `AbstractMemoryMixer.memory_view`."""
        y, _, _ = self._attend(x, state)
        return self.write_norm(x + y), state.memory

    def _attend(
        self, x: Float[Array, " d_model"], state: MACState
    ) -> tuple[
        Float[Array, " d_model"], SegmentCache, Float[Array, "n_carried d_model"]
    ]:
        """Retrieve and attend at one token."""
        memories, query_inputs = self.memory.retrieve(
            x[None, :], Span.whole(1), state.segment_weights, state.query_inputs
        )
        y, cache = self.attention.step(x, memories[0], state.phase, state.cache)
        return y, cache, query_inputs

    def _segments(
        self, x: Float[Array, "slots d_model"], span: Span, state: MACState
    ) -> tuple[Float[Array, "slots d_model"], MACState]:
        """Mix slots that are aligned with the segments."""
        n_segments = span.length // self.segment_len
        chunk_len = self.memory.chunk_len
        first_slots = jnp.arange(n_segments, dtype=jnp.int32) * self.segment_len

        @recomputed
        def body(
            state: MACState, segment: tuple[Float[Array, "segment d_model"], Array]
        ) -> tuple[MACState, Float[Array, "segment d_model"]]:
            x, first_slot = segment
            part = span.part(first_slot, self.segment_len)
            chunks_read = first_slot // chunk_len - span.start // chunk_len
            y, state = self._segment(x, part, state, jnp.maximum(chunks_read, 0))
            return state, y

        segments = x.reshape(n_segments, self.segment_len, x.shape[1])
        state, y = scan(body, state, (segments, first_slots))
        return y.reshape(x.shape), state

    def _segment(
        self,
        x: Float[Array, "segment d_model"],
        span: Span,
        state: MACState,
        chunks_read: Int[Array, ""],
    ) -> tuple[Float[Array, "segment d_model"], MACState]:
        # A whole span begins a segment, where both are equal; naming one spares the
        # backward pass a copy of all weights for each segment.
        running = state.memory.memory.weights
        weights = running if span.is_whole else state.segment_weights
        memories, query_inputs = self.memory.retrieve(
            x, span, weights, state.query_inputs
        )
        y, cache = self.attention(x, memories, span, state.cache)
        written = jax.vmap(self.write_norm)(x + y)
        m, memory = self.memory.read_write(written, span, state.memory, chunks_read)
        phase = jnp.where(span.stop > span.start, span.stop, state.phase)
        return jax.vmap(self.gate)(y, m), self._advance(
            state, memory, query_inputs, cache, phase
        )

    def _advance(
        self,
        state: MACState,
        memory: NeuralMemoryState,
        query_inputs: Float[Array, "n_carried d_model"],
        cache: SegmentCache,
        phase: Int[Array, ""],
    ) -> MACState:
        """The state after some tokens; a full segment hands its weights to the next."""
        is_full = phase == self.segment_len
        return MACState(
            memory=memory,
            segment_weights=select(
                is_full, memory.memory.weights, state.segment_weights
            ),
            query_inputs=query_inputs,
            cache=cache,
            phase=jnp.where(is_full, 0, phase),
        )
