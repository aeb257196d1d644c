"""The neural memory as a layer: projections in, several memories, projection out.

Each head has its own memory. Queries, keys and values are projections with a causal
depthwise convolution and SiLU; queries and keys have unit norm. Gates of the rule are
functions of the token. Reads are normalised, gated and projected back (section 4.4).
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from titans_eqx.axes import HeadWeights, MemoryWeights
from titans_eqx.config import MemoryConfig
from titans_eqx.memory.build import build_net, build_rule
from titans_eqx.memory.gates import Gates
from titans_eqx.memory.inputs import MemoryInputs
from titans_eqx.memory.loss import square_norm
from titans_eqx.memory.memory import AbstractMemory, MemoryStats
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.rule import AbstractRule, AbstractRuleState
from titans_eqx.memory.scan import scan_aligned, scan_tokens
from titans_eqx.nn.conv import ConvProjection
from titans_eqx.nn.linear import linear_rows
from titans_eqx.nn.norm import unit_norm
from titans_eqx.nn.padding import Padding
from titans_eqx.nn.precision import at_least_float32

HEAD_AXIS: Final = 1  # of queries, keys, values and gates: "positions heads ..."


class ConvStates(eqx.Module):
    """Inputs that the three convolutions keep for the next token."""

    query: Float[Array, "conv_state_len d_model"]
    key: Float[Array, "conv_state_len d_model"]
    value: Float[Array, "conv_state_len d_model"]


class NeuralMemoryState(eqx.Module):
    """What the layer carries along a stream; its size never changes."""

    heads: AbstractRuleState  # the rule's state of each head, stacked
    conv_states: ConvStates


class NeuralMemory(AbstractMemory[NeuralMemoryState]):
    """A sequence layer whose memory is learned while it reads."""

    query_projection: ConvProjection
    key_projection: ConvProjection
    value_projection: ConvProjection
    gates: Gates
    initial_weights: HeadWeights  # M_0
    read_norm: eqx.nn.RMSNorm
    output_gate: eqx.nn.Linear
    output_projection: eqx.nn.Linear
    net: AbstractMemoryNet
    rule: AbstractRule

    n_heads: int = eqx.field(static=True)

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int,
        net: AbstractMemoryNet,
        rule: AbstractRule,
        kernel_size: int = 4,
        share_gates: bool = False,
        key: PRNGKeyArray,
    ) -> None:
        """Build the layer.

        Args:
            d_model: Width of the stream; a multiple of `n_heads`.
            n_heads: Memories side by side.
            net: Network of one memory, of width `d_model // n_heads`.
            rule: How memories are written and read.
            kernel_size: Tokens that the convolutions see; 1 = no convolution.
            share_gates: Whether the memory layers of a head share their gates.
            key: Random key.

        Raises:
            ValueError: If the heads do not divide the width, the network has another
                width, or the rule cannot write it.
        """
        if d_model % n_heads != 0:
            raise ValueError(
                f"memory.n_heads must divide d_model, got n_heads={n_heads} and "
                f"d_model={d_model}. Use a divisor of {d_model}."
            )
        d_head = d_model // n_heads
        keys = jr.split(key, 7)
        _check_width(net, d_head)
        self.query_projection, self.key_projection, self.value_projection = (
            ConvProjection(d_model, kernel_size, key=k) for k in keys[:3]
        )
        self.gates = Gates(
            d_model, n_heads, rule.gate_specs(net), is_shared=share_gates, key=keys[3]
        )
        self.initial_weights = jax.vmap(net.init)(jr.split(keys[4], n_heads))
        self.read_norm = eqx.nn.RMSNorm(d_head, use_bias=False)
        self.output_gate, self.output_projection = (
            eqx.nn.Linear(d_model, d_model, use_bias=False, key=k) for k in keys[5:]
        )
        self.net = net
        self.rule = rule
        self.n_heads = n_heads

    @classmethod
    def from_config(
        cls, d_model: int, config: MemoryConfig, *, key: PRNGKeyArray
    ) -> "NeuralMemory":
        """The layer that a config describes, with `MemoryNet` and one of our rules."""
        d = max(1, d_model // config.n_heads)
        return cls(
            d_model,
            n_heads=config.n_heads,
            net=build_net(d, config),
            rule=build_rule(d, config),
            kernel_size=config.kernel_size,
            share_gates=config.gates == "per_head",
            key=key,
        )

    @property
    def chunk_len(self) -> int:
        """The rule's."""
        return self.rule.chunk_len

    def init_state(
        self, prefix: Float[Array, "n_persistent d_model"] | None = None
    ) -> NeuralMemoryState:
        """See `AbstractMemory.init_state`: M_0, after the prefix if there is one."""
        state = NeuralMemoryState(
            heads=jax.vmap(self.rule.init_state)(self._initial()),
            conv_states=ConvStates(
                query=self.query_projection.conv.init_state(),
                key=self.key_projection.conv.init_state(),
                value=self.value_projection.conv.init_state(),
            ),
        )
        if prefix is None or prefix.shape[0] == 0:
            return state
        _, state = self(prefix, state, Padding.none(prefix.shape[0]))
        start_chunk = jax.vmap(lambda s: self.rule.start_chunk(self.rule.end_chunk(s)))
        return NeuralMemoryState(start_chunk(state.heads), state.conv_states)

    def __call__(
        self,
        x: Float[Array, "seq d_model"],
        state: NeuralMemoryState | None = None,
        padding: Padding | None = None,
    ) -> tuple[Float[Array, "seq d_model"], NeuralMemoryState]:
        """See `AbstractMemory.__call__`; a fresh sequence needs no aligning."""
        n_tokens = x.shape[0]
        if state is None:
            state = self.init_state()
            padding = Padding.none(n_tokens) if padding is None else padding
        if padding is not None:
            return self._write_and_read(
                partial(scan_aligned, padding=padding), x, state, padding
            )
        offset = state.heads.chunk_offset[0]
        padding = Padding.aligned(n_tokens, offset, self.chunk_len)
        y, state = self(padding.pad(x), state, padding)
        return padding.unpad(y, n_tokens), state

    def step(
        self, x: Float[Array, " d_model"], state: NeuralMemoryState
    ) -> tuple[Float[Array, " d_model"], NeuralMemoryState]:
        """See `AbstractMemory.step`."""
        y, state = self._write_and_read(scan_tokens, x[None], state, Padding.none(1))
        return y[0], state

    def snapshot(self, state: NeuralMemoryState) -> HeadWeights:
        """See `AbstractMemory.snapshot`: the fast weights."""
        return state.heads.weights

    def init_query_state(self) -> Float[Array, "conv_state_len d_model"]:
        """See `AbstractMemory.init_query_state`: of the query convolution."""
        return self.query_projection.conv.init_state()

    def retrieve(
        self,
        x: Float[Array, "positions d_model"],
        snapshot: HeadWeights,
        query_state: Float[Array, "conv_state_len d_model"],
        padding: Padding,
    ) -> tuple[
        Float[Array, "positions d_model"], Float[Array, "conv_state_len d_model"]
    ]:
        """See `AbstractMemory.retrieve`."""
        queries, query_state = self.query_projection(x, query_state, padding)
        over_heads = jax.vmap(self.net, in_axes=(0, HEAD_AXIS), out_axes=HEAD_AXIS)
        reads = over_heads(snapshot, unit_norm(self._split_heads(queries)))
        return self._output(x, reads), query_state

    def probe(
        self, x: Float[Array, " d_model"], state: NeuralMemoryState
    ) -> MemoryStats:
        """See `AbstractMemory.probe`."""
        inputs, _ = self._project(x[None], state.conv_states, Padding.none(1))
        token = jax.tree.map(lambda leaf: leaf[0], inputs)
        _, after = self.step(x, state)

        def surprise_norm(token: MemoryInputs, head: AbstractRuleState) -> Array:
            return jnp.sqrt(square_norm(self.rule.surprise(self.net, token, head)))

        return MemoryStats(
            surprise=jax.vmap(surprise_norm)(token, state.heads),
            gates=token.gates,
            weight_norm=jnp.sqrt(jax.vmap(square_norm)(after.heads.weights)),
        )

    def _write_and_read(
        self,
        scan: Callable[..., tuple[Float[Array, "positions d"], AbstractRuleState]],
        x: Float[Array, "positions d_model"],
        state: NeuralMemoryState,
        padding: Padding,
    ) -> tuple[Float[Array, "positions d_model"], NeuralMemoryState]:
        """Project, run one form of the rule on each head, and project back."""
        inputs, conv_states = self._project(x, state.conv_states, padding)

        def one_head(
            inputs: MemoryInputs, state: AbstractRuleState, initial: MemoryWeights
        ) -> tuple[Float[Array, "positions d"], AbstractRuleState]:
            return scan(self.rule, self.net, inputs, state, initial=initial)

        over_heads = jax.vmap(
            one_head, in_axes=(HEAD_AXIS, 0, 0), out_axes=(HEAD_AXIS, 0)
        )
        reads, heads = over_heads(inputs, state.heads, self._initial())
        return self._output(x, reads), NeuralMemoryState(heads, conv_states)

    def _project(
        self,
        x: Float[Array, "positions d_model"],
        conv_states: ConvStates,
        padding: Padding,
    ) -> tuple[MemoryInputs, ConvStates]:
        """What the rule is given, with heads as second axis."""
        queries, query_state = self.query_projection(x, conv_states.query, padding)
        keys, key_state = self.key_projection(x, conv_states.key, padding)
        values, value_state = self.value_projection(x, conv_states.value, padding)

        def one_head(*arrays: PyTree[Array]) -> MemoryInputs:
            return MemoryInputs(*arrays)

        inputs = jax.vmap(one_head, in_axes=HEAD_AXIS, out_axes=HEAD_AXIS)(
            unit_norm(self._split_heads(queries)),
            unit_norm(self._split_heads(keys)),
            self._split_heads(values),
            jax.vmap(self.gates)(x),
        )
        return inputs, ConvStates(query_state, key_state, value_state)

    def _output(
        self,
        x: Float[Array, "positions d_model"],
        reads: Float[Array, "positions heads d"],
    ) -> Float[Array, "positions d_model"]:
        reads = jax.vmap(jax.vmap(self.read_norm))(reads.astype(x.dtype))
        gate = jax.nn.silu(linear_rows(self.output_gate, x))
        joined = rearrange(reads, "positions heads d -> positions (heads d)")
        return linear_rows(self.output_projection, joined * gate)

    def _initial(self) -> HeadWeights:
        weights = self.rule.outer_gradient.initial(self.initial_weights)
        return jax.tree.map(at_least_float32, weights)

    def _split_heads(
        self, x: Float[Array, "positions d_model"]
    ) -> Float[Array, "positions heads d"]:
        pattern = "positions (heads d) -> positions heads d"
        return at_least_float32(rearrange(x, pattern, heads=self.n_heads))


def _check_width(net: AbstractMemoryNet, d_head: int) -> None:
    def read() -> Array:
        return net(net.init(jr.key(0)), jnp.zeros(d_head))

    try:
        fits = jax.eval_shape(read).shape == (d_head,)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"the memory network must map d_model / n_heads = {d_head} features to as "
            f"many, got {net}. Build it with that width."
        )
