"""A rule with another retention than decay alone (MIRAS, arXiv 2504.13173).

A memory accumulates as the rule says, and its weights are a multiple of that:

    S_t = eta_t S_{t-1} - theta_t u_t              u_t at the anchor, of the weights
    A_t = (1 - alpha_t) A_{t-1} + S_t,    W_t = s A_t,    y_t = W_t(q_t)

At the end of a chunk the retention maps `A` and sets `s`, for each memory layer. Until
the next one `s` is constant, so `W_t` and `s S_t` obey the same recurrence with the
learning rate `s theta_t`: both forms are those of the rule itself, for any network,
loss and split. The scale is a function of the weights, and is trained through.

Reading: the last token of a chunk reads before the retention, as all others do, and the
next chunk starts after it. With chunks of one token these are the published weights.
"""

from collections.abc import Mapping
from typing import TypeAlias

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.inputs import GateSpec, MemoryInputs
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.omega import OmegaRule, OmegaState
from titans_eqx.memory.outer_gradient import OuterGradient
from titans_eqx.memory.retention import AbstractRetention
from titans_eqx.memory.rule import AbstractRule, AbstractRuleState
from titans_eqx.memory.titans import TitansRule, TitansState
from titans_eqx.nn.precision import at_least_float32
from titans_eqx.nn.tree import select

InnerState: TypeAlias = TitansState | OmegaState


class RetentionState(AbstractRuleState):
    """The state of the rule, scaled, whose offset says what the chunk has written."""

    inner: InnerState  # its weights are W_t, its velocity s S_t
    scale: Float[Array, " n_memory_layers"]  # s
    chunk_offset: Int[Array, ""]

    def __init__(
        self,
        inner: InnerState,
        scale: Float[Array, " n_memory_layers"],
        chunk_offset: Int[Array, ""],
    ) -> None:
        """All but the weights, which are those of the rule."""
        self.inner = inner
        self.scale = scale
        self.chunk_offset = chunk_offset

    @property
    def weights(self) -> tuple[Float[Array, "*heads _ _"], ...]:
        """W_t."""
        return self.inner.weights


class RetentionRule(AbstractRule[RetentionState]):
    """The gates and options of another rule, which goes on between the chunks' ends."""

    rule: AbstractRule
    retention: AbstractRetention

    chunk_len: int = eqx.field(static=True)
    outer_gradient: OuterGradient = eqx.field(static=True)

    def __init__(
        self, rule: TitansRule | OmegaRule, retention: AbstractRetention
    ) -> None:
        """Add a retention to a rule that descends with a velocity."""
        self.rule = rule
        self.retention = retention
        self.chunk_len = rule.chunk_len
        self.outer_gradient = rule.outer_gradient

    def gate_specs(self, net: AbstractMemoryNet) -> Mapping[str, GateSpec]:
        """Those of the rule."""
        return self.rule.gate_specs(net)

    def init_state(self, weights: MemoryWeights) -> RetentionState:
        """See `AbstractRule.init_state`: M_0 is what is accumulated, W_0 = s M_0."""
        scaled, scales = [], []
        for w in weights:
            a, s = self.retention(at_least_float32(w), jnp.zeros((), jnp.int32))
            scaled.append(s * a)
            scales.append(s)
        inner = self.rule.init_state(tuple(scaled))
        return self.start_chunk((self.rule.end_chunk(inner), jnp.stack(scales)))

    def end_chunk(
        self, state: RetentionState
    ) -> tuple[PyTree[Array], Float[Array, " n_memory_layers"]]:
        """See `AbstractRule.end_chunk`; a chunk without tokens changes nothing."""
        inner, n_tokens = state.inner, state.inner.chunk_offset
        weights, velocity, scales = [], [], []
        for w, v, s in zip(inner.weights, inner.velocity, state.scale, strict=True):
            a, new_s = self.retention(w / s, n_tokens)
            weights.append(new_s * a)
            velocity.append(new_s / s * v)
            scales.append(new_s)
        old = inner.weights, inner.velocity, state.scale
        new = tuple(weights), tuple(velocity), jnp.stack(scales)
        *parts, scale = select(n_tokens > 0, new, old)
        inner = eqx.tree_at(lambda s: [s.weights, s.velocity], inner, parts)
        return self.rule.end_chunk(inner), scale

    def start_chunk(
        self, carry: tuple[PyTree[Array], Float[Array, " n_memory_layers"]]
    ) -> RetentionState:
        """See `AbstractRule.start_chunk`."""
        inner, scale = carry
        return RetentionState(
            inner=self.rule.start_chunk(inner),
            scale=scale,
            chunk_offset=jnp.zeros((), jnp.int32),
        )

    def surprise(
        self, net: AbstractMemoryNet, token: MemoryInputs, state: RetentionState
    ) -> MemoryWeights:
        """See `AbstractRule.surprise`: of the rule, at the weights."""
        return self.rule.surprise(net, token, state.inner)

    def step(
        self,
        net: AbstractMemoryNet,
        token: MemoryInputs,
        state: RetentionState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, " d"], RetentionState]:
        """See `AbstractRule.step`."""
        token, initial = _scaled(token, initial, state.scale)
        read, inner = self.rule.step(net, token, state.inner, initial)
        return read, _after(state, inner, jnp.ones((), jnp.int32))

    def chunk(
        self,
        net: AbstractMemoryNet,
        inputs: MemoryInputs,
        is_real: Bool[Array, " chunk"],
        state: RetentionState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, "chunk d"], RetentionState]:
        """See `AbstractRule.chunk`."""
        inputs, initial = _scaled(inputs, initial, state.scale)
        reads, inner = self.rule.chunk(net, inputs, is_real, state.inner, initial)
        return reads, _after(state, inner, jnp.sum(is_real, dtype=jnp.int32))


def _scaled(
    inputs: MemoryInputs,
    initial: MemoryWeights | None,
    scale: Float[Array, " n_memory_layers"],
) -> tuple[MemoryInputs, MemoryWeights | None]:
    """Learning rates and M_0 of the recurrence of `W_t`."""
    rates = inputs.gates["learning_rate"]
    rates = rates * jnp.broadcast_to(scale, rates.shape)
    inputs = eqx.tree_at(lambda x: x.gates["learning_rate"], inputs, rates)
    if initial is not None:
        weights = [at_least_float32(w) for w in initial]
        initial = tuple(s * w for s, w in zip(scale, weights, strict=True))
    return inputs, initial


def _after(
    state: RetentionState, inner: InnerState, n_tokens: Int[Array, ""]
) -> RetentionState:
    written = state.inner.chunk_offset + n_tokens
    return RetentionState(
        inner=eqx.tree_at(lambda s: s.chunk_offset, inner, written),
        scale=state.scale,
        chunk_offset=state.chunk_offset,
    )
