"""The Omega rule: every token writes the last `window` pairs again (ATLAS).

    u_{t,i} = grad_M loss(M(k_i), v_i)                     at the anchor of token t
    S_t = eta_t S_{t-1} - theta_t sum_{t - window < i <= t} gamma_{t,i} u_{t,i}
    M_t = (1 - alpha_t) M_{t-1} + S_t,    y_t = M_t(q_t)

`gamma_{t,t} = 1`, and `gamma_{t,i} = gamma_i` for older pairs: a gate of the pair's own
token, `window`. So a window of 1 is the Titans rule. In its closed form (`titans.py`,
`decay.py`) the diagonal matrix of the thetas becomes a banded one, `Gamma[t, i]`:

    x_t M_t = A_t (x_t M) + f_t (x_t S) - sum_i (H Gamma)[t, i] (x_t . a_i) g_i

At the start of a chunk the anchor has moved, so the last `window - 1` pairs of the
chunk before are evaluated again: a chunk of `b` tokens takes `b + window - 1`
gradients, and the state carries `window - 1` pairs.

Reading: clipping is of each pair's surprise, `min(1, c / |u_{t,i}|)`, so that one token
writes at most `window * c`.
"""

from collections.abc import Mapping
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from titans_eqx.axes import MemoryWeights
from titans_eqx.errors import check_option, check_size
from titans_eqx.memory.decay import chunk_decay, scaled_product, weighted_outer
from titans_eqx.memory.inputs import GateSpec, MemoryInputs, Start
from titans_eqx.memory.loss import (
    AbstractInnerLoss,
    SquaredError,
    clip_scale,
    factors_square_norm,
    square_norm,
    surprise_factors,
    token_surprise,
)
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.outer_gradient import OuterGradient
from titans_eqx.memory.rule import AbstractRule, AbstractRuleState
from titans_eqx.nn.precision import at_least_float32
from titans_eqx.nn.remat import save_for_backward


class OmegaState(AbstractRuleState):
    """Fast weights, velocity, anchor, and the pairs that are written again."""

    weights: MemoryWeights  # M_t
    velocity: MemoryWeights  # S_t
    anchor: MemoryWeights  # the weights at the end of the last whole chunk
    pairs: MemoryInputs  # the last `window - 1` tokens, oldest first; zero: none
    chunk_offset: Int[Array, ""]


class OmegaRule(AbstractRule[OmegaState]):
    """Gates as in Titans (with scalar decay), and `window` (gamma)."""

    loss: AbstractInnerLoss

    d: int = eqx.field(static=True)
    window: int = eqx.field(static=True)
    chunk_len: int = eqx.field(static=True)
    clip: float = eqx.field(static=True)
    read: Literal["after", "before"] = eqx.field(static=True)
    outer_gradient: OuterGradient = eqx.field(static=True)
    decay_start: Start = eqx.field(static=True)
    max_learning_rate: float = eqx.field(static=True)

    def __init__(
        self,
        d: int,
        *,
        window: int = 4,
        chunk_len: int = 32,
        loss: AbstractInnerLoss | None = None,
        clip: float = 1.0,
        read: Literal["after", "before"] = "after",
        outer_gradient: OuterGradient | None = None,
        decay_start: Start = 0.01,
        max_learning_rate: float = 0.1,
    ) -> None:
        """Choose the options of the rule.

        Args:
            d: Width of keys and values, of which the state carries some.
            window: Pairs that a token writes, its own included.
            chunk_len: Tokens whose surprises are taken at the same anchor.
            loss: The inner loss; default `SquaredError()`.
            clip: Norm of a pair's surprise that is written in full; 0 = no clipping.
            read: Whether a token reads after or before its own write.
            outer_gradient: Where the outer gradient stops; default `OuterGradient()`.
            decay_start: alpha before training, see `Start`.
            max_learning_rate: Upper bound of theta, which starts at half of it.

        Raises:
            ValueError: If the window is less than 1.
        """
        check_size("window", window)
        check_option("read", read, "after", "before")
        self.loss = SquaredError() if loss is None else loss
        self.d = d
        self.window = window
        self.chunk_len = chunk_len
        self.clip = clip
        self.read = read
        self.outer_gradient = outer_gradient or OuterGradient()
        self.decay_start = decay_start
        self.max_learning_rate = max_learning_rate

    def gate_specs(self, net: AbstractMemoryNet) -> Mapping[str, GateSpec]:
        """See `AbstractRule.gate_specs`."""
        high = self.max_learning_rate
        return {
            "decay": GateSpec(size=len(net.shapes), start=self.decay_start),
            "momentum": GateSpec(size=len(net.shapes), start=0.1, neutral=1.0),
            "learning_rate": GateSpec(size=len(net.shapes), start=high / 2, high=high),
            **self._pair_gates(len(net.shapes)),
        }

    def _pair_gates(self, n_memory_layers: int) -> dict[str, GateSpec]:
        """Gates that stay with a pair while it is in the window."""
        window = GateSpec(size=n_memory_layers, start=0.5)
        return {"window": window, **self.loss.gate_specs()}

    def init_state(self, weights: MemoryWeights) -> OmegaState:
        """See `AbstractRule.init_state`; no pairs yet."""
        weights = tuple(at_least_float32(w) for w in weights)
        rows, dtype = self.window - 1, weights[0].dtype
        pairs = MemoryInputs(
            *jnp.zeros((3, rows, self.d), dtype),
            gates={
                name: jnp.full((rows, spec.size), spec.neutral, dtype)
                for name, spec in self._pair_gates(len(weights)).items()
            },
        )
        velocity = jax.tree.map(jnp.zeros_like, weights)
        return self.start_chunk((weights, velocity, pairs))

    def end_chunk(
        self, state: OmegaState
    ) -> tuple[MemoryWeights, MemoryWeights, MemoryInputs]:
        """See `AbstractRule.end_chunk`; the anchor will be the weights."""
        return state.weights, state.velocity, state.pairs

    def start_chunk(
        self, carry: tuple[MemoryWeights, MemoryWeights, MemoryInputs]
    ) -> OmegaState:
        """See `AbstractRule.start_chunk`."""
        weights, velocity, pairs = carry
        return OmegaState(
            weights=weights,
            velocity=velocity,
            anchor=weights,
            pairs=pairs,
            chunk_offset=jnp.zeros((), jnp.int32),
        )

    def surprise(
        self, net: AbstractMemoryNet, token: MemoryInputs, state: OmegaState
    ) -> MemoryWeights:
        """See `AbstractRule.surprise`: of the token's own pair, before clipping."""
        anchor = self.outer_gradient.anchor(state.anchor)
        return token_surprise(net, self.loss, anchor, token)

    def step(
        self,
        net: AbstractMemoryNet,
        token: MemoryInputs,
        state: OmegaState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, " d"], OmegaState]:
        """See `AbstractRule.step`."""

        def clipped(pair: MemoryInputs, share: Float[Array, " n_memory_layers"]):
            u = self.surprise(net, pair, state)
            scale = clip_scale(square_norm(u), self.clip)
            return tuple(scale * share[layer] * one for layer, one in enumerate(u))

        own = clipped(token, jnp.ones_like(token.gates["window"]))
        older = jax.vmap(clipped)(state.pairs, state.pairs.gates["window"])
        gates = token.gates
        velocity, weights = [], []
        for layer, (u, others) in enumerate(zip(own, older, strict=True)):
            u = u + jnp.sum(others, axis=0)
            s = gates["momentum"][layer] * state.velocity[layer]
            velocity.append(s - gates["learning_rate"][layer] * u)
            m = (1 - gates["decay"][layer]) * state.weights[layer]
            weights.append(m + velocity[layer])
        pairs = jax.tree.map(
            lambda rows, new: jnp.concatenate([rows, new])[1:],
            state.pairs,
            self._pairs(jax.tree.map(lambda x: x[None], token)),
        )
        seen = tuple(weights) if self.read == "after" else state.weights
        return net(seen, token.queries), OmegaState(
            weights=tuple(weights),
            velocity=tuple(velocity),
            anchor=state.anchor,
            pairs=pairs,
            chunk_offset=state.chunk_offset,
        )

    def chunk(
        self,
        net: AbstractMemoryNet,
        inputs: MemoryInputs,
        is_real: Bool[Array, " chunk"],
        state: OmegaState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, "chunk d"], OmegaState]:
        """See `AbstractRule.chunk`."""
        pairs, later = self._extend(state.pairs, self._pairs(inputs), is_real)
        anchor = self.outer_gradient.anchor(state.anchor)
        layer_inputs, gradients = surprise_factors(net, self.loss, anchor, pairs)
        scale = clip_scale(factors_square_norm(layer_inputs, gradients), self.clip)
        descent = -scale[None]
        gates = inputs.gates
        written = [
            chunk_decay(gates["decay"][:, i], gates["momentum"][:, i], is_real)
            for i in range(len(gradients))
        ]
        bands = [
            self._band(gates["learning_rate"][:, i], pairs.gates["window"][:, i])
            for i in range(len(gradients))
        ]
        seen = written
        if self.read == "before":
            # Everything is a token earlier, the band included.
            seen = [factors.before_own_write() for factors in written]

        def linear(layer: int, x: Float[Array, "chunk d_in"]) -> Array:
            factors = seen[layer]
            scores = save_for_backward(x @ layer_inputs[layer].T)
            scores = (factors.write_weights @ bands[layer]) * scores
            y = scaled_product(factors.carry_weights[None], x, state.weights[layer])
            carried = factors.carry_velocity[None]
            y = y + scaled_product(carried, x, state.velocity[layer])
            return save_for_backward(y + (scores * descent) @ gradients[layer])

        reads = net.forward(linear, inputs.queries)
        weights, velocity = [], []
        for layer, (a, g) in enumerate(zip(layer_inputs, gradients, strict=True)):
            factors, band = written[layer], bands[layer]
            m = factors.carry_weights[-1] * state.weights[layer]
            m = m + factors.carry_velocity[-1] * state.velocity[layer]
            shares = descent * (factors.write_weights[-1:] @ band)
            weights.append(m + weighted_outer(shares, a, g))
            shares = descent * (factors.velocity_write[None] @ band)
            s = factors.velocity_carry * state.velocity[layer]
            velocity.append(s + weighted_outer(shares, a, g))
        return reads, OmegaState(
            weights=tuple(weights),
            velocity=tuple(velocity),
            anchor=state.anchor,
            pairs=later,
            chunk_offset=state.chunk_offset,
        )

    def _pairs(self, inputs: MemoryInputs) -> MemoryInputs:
        """What stays of tokens while they are in the window."""
        n_memory_layers = inputs.gates["window"].shape[-1]
        gates = {name: inputs.gates[name] for name in self._pair_gates(n_memory_layers)}
        zeros = jnp.zeros_like(inputs.keys)  # of queries, which are never asked again
        return MemoryInputs(zeros, inputs.keys, inputs.values, gates)

    def _extend(
        self, pairs: MemoryInputs, chunk: MemoryInputs, is_real: Bool[Array, " chunk"]
    ) -> tuple[MemoryInputs, MemoryInputs]:
        """The older pairs right before the first real token; and the last ones."""
        start, n_real = jnp.argmax(is_real), jnp.sum(is_real)

        def extend(older: Array, rows: Array) -> Array:
            extended = jnp.concatenate([jnp.zeros_like(older), rows])
            return jax.lax.dynamic_update_slice_in_dim(extended, older, start, axis=0)

        extended = jax.tree.map(extend, pairs, chunk)
        later = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, start + n_real, self.window - 1),
            extended,
        )
        return extended, later

    def _band(
        self, theta: Float[Array, " chunk"], gamma: Float[Array, " pairs"]
    ) -> Float[Array, "chunk pairs"]:
        """`Gamma[t, i]`; pair `t + window - 1` is that of token `t` itself."""
        offset = jnp.arange(gamma.size)[None, :] - jnp.arange(theta.size)[:, None]
        own = self.window - 1
        older = jnp.where((offset >= 0) & (offset < own), gamma[None, :], 0)
        return theta[:, None] * jnp.where(offset == own, 1, older)
