"""The neural memory as a layer: projections in, several memories, projection out.

Each head has a memory of its own. Queries, keys and values are projections followed by
a causal depthwise convolution and SiLU; queries and keys have unit norm. The gates of
the update rule are functions of the token, one for each head and memory layer. Reads
are normalised, gated by the input and projected back to the stream (section 4.4).
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from titans_eqx.axes import HeadWeights, MemoryWeights
from titans_eqx.config import MemoryConfig
from titans_eqx.memory.scan import scan_slots
from titans_eqx.memory.gates import MemoryGates
from titans_eqx.memory.layer_state import ConvInputs, NeuralMemoryState
from titans_eqx.memory.net import MemoryNet
from titans_eqx.memory.recurrent import scan_tokens
from titans_eqx.memory.rule import UpdateRule
from titans_eqx.memory.state import MemoryInputs, MemoryState, at_least_float32
from titans_eqx.nn.conv import ConvProjection
from titans_eqx.nn.linear import linear_rows
from titans_eqx.nn.norm import unit_norm
from titans_eqx.nn.padding import Span

HEAD_AXIS: Final = 1  # of queries, keys, values and gates: "slots heads ..."


class NeuralMemory(eqx.Module):
    """A sequence layer whose memory is learned while it reads."""

    query_projection: ConvProjection
    key_projection: ConvProjection
    value_projection: ConvProjection
    gates: MemoryGates
    initial_weights: HeadWeights  # M_0
    read_norm: eqx.nn.RMSNorm
    output_gate: eqx.nn.Linear
    output_projection: eqx.nn.Linear

    net: MemoryNet
    rule: UpdateRule = eqx.field(static=True)
    n_heads: int = eqx.field(static=True)
    chunk_len: int = eqx.field(static=True)

    def __init__(
        self, d_model: int, config: MemoryConfig, *, key: PRNGKeyArray
    ) -> None:
        """Build the layer.

        Args:
            d_model: Width of the stream; a multiple of `config.n_heads`.
            config: Size of the memories and options of the update rule.
            key: Random key.

        Raises:
            ValueError: If the heads do not divide the width.
        """
        if d_model % config.n_heads != 0:
            raise ValueError(
                f"memory.n_heads must divide d_model, got n_heads={config.n_heads} and "
                f"d_model={d_model}. Use a divisor of {d_model}."
            )
        keys = jr.split(key, 7)
        taps, d_head = config.conv_taps, d_model // config.n_heads
        self.query_projection = ConvProjection(d_model, taps, key=keys[0])
        self.key_projection = ConvProjection(d_model, taps, key=keys[1])
        self.value_projection = ConvProjection(d_model, taps, key=keys[2])
        self.net = MemoryNet(
            d_head,
            config.depth,
            config.expansion,
            residual=config.residual,
            norm=config.norm,
        )
        channels = tuple(d_in for d_in, _ in self.net.shapes)
        self.gates = MemoryGates(d_model, config, channels, key=keys[3])
        self.initial_weights = jax.vmap(self.net.init)(
            jr.split(keys[4], config.n_heads)
        )
        self.read_norm = eqx.nn.RMSNorm(d_head, use_bias=False)
        self.output_gate = eqx.nn.Linear(d_model, d_model, use_bias=False, key=keys[5])
        self.output_projection = eqx.nn.Linear(
            d_model, d_model, use_bias=False, key=keys[6]
        )
        self.rule = UpdateRule.from_config(config)
        self.n_heads = config.n_heads
        self.chunk_len = config.chunk_len

    def init_state(
        self, prefix: Float[Array, "n_persistent d_model"] | None = None
    ) -> NeuralMemoryState:
        """The state before the first token: M_0, no momentum, zero inputs.

        Args:
            prefix: Learned tokens that every sequence starts with; they are read here,
                as a chunk of their own, so that the sequence starts at a chunk's start.

        Returns:
            The state, at phase 0.
        """
        state = NeuralMemoryState(
            memory=jax.vmap(MemoryState.initial)(self._initial_weights()),
            conv_inputs=ConvInputs(
                query=self.query_projection.init_state(),
                key=self.key_projection.init_state(),
                value=self.value_projection.init_state(),
            ),
        )
        if prefix is None or prefix.shape[0] == 0:
            return state
        _, state = self.start(prefix, state)
        return NeuralMemoryState(
            memory=jax.vmap(MemoryState.at_chunk_start)(state.memory),
            conv_inputs=state.conv_inputs,
        )

    def __call__(
        self, x: Float[Array, "seq d_model"], state: NeuralMemoryState | None = None
    ) -> tuple[Float[Array, "seq d_model"], NeuralMemoryState]:
        """Write and read a piece of a sequence, chunk by chunk.

        Args:
            x: Tokens, at least one.
            state: Where the stream stands, at any phase; None for a fresh sequence,
                which saves the work of aligning the piece with the chunks.

        Returns:
            What the memory answers at each token, and the state after the last one.
        """
        if state is None:
            return self.start(x, self.init_state())
        n_tokens = x.shape[0]
        span = Span.placed(n_tokens, state.memory.phase[0], self.chunk_len)
        y, state = self.read_write(span.place(x), span, state)
        return span.take(y, n_tokens), state

    def start(
        self, x: Float[Array, "seq d_model"], state: NeuralMemoryState
    ) -> tuple[Float[Array, "seq d_model"], NeuralMemoryState]:
        """`__call__` from a state that is known to stand at the start of a chunk.

        Args:
            x: Tokens, at least one.
            state: A state at phase 0, such as `init_state` returns.

        Returns:
            What the memory answers at each token, and the state after the last one.
        """
        return self.read_write(x, Span.whole(x.shape[0]), state)

    def step(
        self, x: Float[Array, " d_model"], state: NeuralMemoryState
    ) -> tuple[Float[Array, " d_model"], NeuralMemoryState]:
        """Write and read one token, at the same cost wherever it stands.

        Args:
            x: One token.
            state: Where the stream stands.

        Returns:
            What the memory answers, and the next state.
        """
        rows, span = x[None, :], Span.whole(1)
        scan = partial(scan_tokens, self.net)
        y, state = self._scan(scan, rows, span, state)
        return y[0], state

    def read_write(
        self,
        x: Float[Array, "slots d_model"],
        span: Span,
        state: NeuralMemoryState,
        chunks_read: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "slots d_model"], NeuralMemoryState]:
        """`__call__` on slots that are aligned with the chunks.

        Args:
            x: One row a slot.
            span: Which slots are real.
            state: State before the first real slot.
            chunks_read: Chunks finished by the caller before, for `truncate_every`.

        Returns:
            Answers (meaningless at padding), and the state after the last real slot.
        """
        scan = partial(scan_slots, self.net, span=span, chunks_read=chunks_read)
        return self._scan(scan, x, span, state)

    def retrieve(
        self,
        x: Float[Array, "slots d_model"],
        span: Span,
        weights: HeadWeights,
        carried: Float[Array, "n_carried d_model"],
    ) -> tuple[Float[Array, "slots d_model"], Float[Array, "n_carried d_model"]]:
        """Read fixed weights without writing (Titans, Eqs. 15 and 21).

        Args:
            x: One row a slot.
            span: Which slots are real.
            weights: Fast weights of all heads, as found in a state.
            carried: Inputs that the query convolution kept from the slots before.

        Returns:
            Answers, and what the convolution keeps for the slots after.
        """
        queries, carried = self._queries(x, span, carried)
        reads = jax.vmap(self.net, in_axes=(0, HEAD_AXIS), out_axes=HEAD_AXIS)(
            weights, queries
        )
        return self._output(x, reads), carried

    def project(
        self, x: Float[Array, "slots d_model"], span: Span, carried: ConvInputs
    ) -> tuple[MemoryInputs, ConvInputs]:
        """What the update rule is given at each slot.

        Args:
            x: One row a slot.
            span: Which slots are real.
            carried: Inputs of the convolutions from before.

        Returns:
            Queries, keys, values and gates with heads as second axis, and the inputs
            to carry on.
        """
        queries, carried_query = self._queries(x, span, carried.query)
        keys, carried_key = self.key_projection(x, carried.key, span)
        values, carried_value = self.value_projection(x, carried.value, span)
        decay, momentum, step = jax.vmap(self.gates)(x)

        def one_head(*arrays: PyTree[Array]) -> MemoryInputs:
            return MemoryInputs(*arrays)

        inputs = jax.vmap(one_head, in_axes=HEAD_AXIS, out_axes=HEAD_AXIS)(
            queries,
            unit_norm(self._heads(keys)),
            self._heads(values),
            decay,
            momentum,
            step,
        )
        return inputs, ConvInputs(carried_query, carried_key, carried_value)

    def _scan(
        self,
        scan: Callable[..., tuple[Float[Array, "slots d"], MemoryState]],
        x: Float[Array, "slots d_model"],
        span: Span,
        state: NeuralMemoryState,
    ) -> tuple[Float[Array, "slots d_model"], NeuralMemoryState]:
        """Project, run one form of the rule on each head, and project back."""
        inputs, conv_inputs = self.project(x, span, state.conv_inputs)

        def one_head(
            inputs: MemoryInputs, state: MemoryState, initial: MemoryWeights
        ) -> tuple[Float[Array, "slots d"], MemoryState]:
            return scan(
                inputs=inputs,
                state=state,
                chunk_len=self.chunk_len,
                rule=self.rule,
                initial=initial,
            )

        over_heads = jax.vmap(
            one_head, in_axes=(HEAD_AXIS, 0, 0), out_axes=(HEAD_AXIS, 0)
        )
        reads, memory = over_heads(inputs, state.memory, self._initial_weights())
        return self._output(x, reads), NeuralMemoryState(memory, conv_inputs)

    def _initial_weights(self) -> HeadWeights:
        weights = jax.vmap(self.rule.boundary.initial)(self.initial_weights)
        return jax.tree.map(at_least_float32, weights)

    def _heads(self, x: Float[Array, "slots d_model"]) -> Float[Array, "slots heads d"]:
        return at_least_float32(x.reshape(x.shape[0], self.n_heads, -1))

    def _queries(
        self,
        x: Float[Array, "slots d_model"],
        span: Span,
        carried: Float[Array, "n_carried d_model"],
    ) -> tuple[Float[Array, "slots heads d"], Float[Array, "n_carried d_model"]]:
        queries, carried = self.query_projection(x, carried, span)
        return unit_norm(self._heads(queries)), carried

    def _output(
        self, x: Float[Array, "slots d_model"], reads: Float[Array, "slots heads d"]
    ) -> Float[Array, "slots d_model"]:
        reads = jax.vmap(jax.vmap(self.read_norm))(reads.astype(x.dtype))
        gate = jax.nn.silu(linear_rows(self.output_gate, x))
        return linear_rows(self.output_projection, reads.reshape(x.shape) * gate)
