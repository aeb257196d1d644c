"""The Titans rule: gradient descent with momentum and forgetting, chunk by chunk.

    u_t = grad_M 1/2 |M(k_t) - v_t|^2   at the anchor    (Titans, Eqs. 12 and 16)
    S_t = eta_t S_{t-1} - theta_t u_t                    (Eqs. 10 and 14)
    M_t = (1 - alpha_t) M_{t-1} + S_t                    (Eq. 13)
    y_t = M_t(q_t)                                       (Eq. 15)

The anchor is the weights at the end of the last whole chunk. So all gradients of a
chunk come from one forward and one backward pass over its rows. The gradient of a
linear map at token `i` is rank one, `u_i = a_i^T g_i` (input and output gradient of the
map), and the map with the weights of time `t` is applied to a row `x_t` without
building them:

    x_t M_t = A_t (x_t M) + f_t (x_t S) - sum_{i <= t} H[t, i] (x_t . a_i) theta_i g_i

which is one masked, attention-like product for each memory layer; see `decay.py` for
`A`, `f` and `H`. With channel-wise decay each input channel has an `A`, `f` and `H` of
its own, and the sum over channels in `x_t . a_i` is weighted with `H`: for a chunk of
`b` tokens that costs `b^2` numbers and `b^3` multiplications for each channel, against
`b^2` and `b^3` in all.

Reading: the paper does not say whether a token reads before or after its own write. We
read after it by default, which is causal and lets a token use itself.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from titans_eqx.axes import MemoryWeights
from titans_eqx.errors import check_option
from titans_eqx.memory.decay import (
    ChunkDecay,
    chunk_decay,
    decayed_scores,
    scaled_product,
    weighted_outer,
)
from titans_eqx.memory.inputs import GateSpec, MemoryInputs, Start
from titans_eqx.memory.loss import (
    AbstractInnerLoss,
    SquaredError,
    clip_scale,
    factors_square_norm,
    surprise_factors,
    token_surprise,
)
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.outer_gradient import OuterGradient
from titans_eqx.memory.rule import AbstractPreparedRule, AbstractRuleState
from titans_eqx.nn.precision import at_least_float32
from titans_eqx.nn.remat import save_for_backward


class TitansState(AbstractRuleState):
    """Fast weights, their velocity, and where gradients are taken."""

    weights: MemoryWeights  # M_t
    velocity: MemoryWeights  # S_t, "past surprise"
    anchor: MemoryWeights  # the weights at the end of the last whole chunk
    chunk_offset: Int[Array, ""]


class TitansRule(AbstractPreparedRule[TitansState]):
    """Gates alpha (`decay`), eta (`momentum`) and theta (`learning_rate`).

    Each has a value for every memory layer; with `decay="channel"`, as in the
    camera-ready paper, alpha has one for every row of every layer's weights.
    """

    loss: AbstractInnerLoss

    chunk_len: int = eqx.field(static=True)
    clip: float = eqx.field(static=True)
    decay_towards: Literal["zero", "initial"] = eqx.field(static=True)
    read: Literal["after", "before"] = eqx.field(static=True)
    outer_gradient: OuterGradient = eqx.field(static=True)
    decay: Literal["scalar", "channel", "none"] = eqx.field(static=True)
    decay_start: Start = eqx.field(static=True)
    use_momentum: bool = eqx.field(static=True)
    max_learning_rate: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        chunk_len: int = 32,
        loss: AbstractInnerLoss | None = None,
        clip: float = 1.0,
        decay_towards: Literal["zero", "initial"] = "zero",
        read: Literal["after", "before"] = "after",
        outer_gradient: OuterGradient | None = None,
        decay: Literal["scalar", "channel", "none"] = "scalar",
        decay_start: Start = 0.01,
        use_momentum: bool = True,
        max_learning_rate: float = 0.1,
    ) -> None:
        """Choose the options of the rule.

        Args:
            chunk_len: Tokens whose surprise is taken at the same anchor.
            loss: The inner loss; default `SquaredError()`.
            clip: Surprise norm `c` that is written at the full learning rate; theta is
                scaled by `min(1, c / |u_t|)`. 0 = no clipping.
            decay_towards: Where forgetting leads, zero weights or M_0.
            read: Whether a token reads after or before its own write.
            outer_gradient: Where the outer gradient stops; default `OuterGradient()`.
            decay: Whether alpha has a value for each memory layer or row, or is zero.
            decay_start: alpha before training, see `Start`.
            use_momentum: Whether there is a gate eta; without it eta is zero.
            max_learning_rate: Upper bound of theta, which starts at half of it.
        """
        check_option("decay_towards", decay_towards, "zero", "initial")
        check_option("read", read, "after", "before")
        check_option("decay", decay, "scalar", "channel", "none")
        self.loss = SquaredError() if loss is None else loss
        self.chunk_len = chunk_len
        self.clip = clip
        self.decay_towards = decay_towards
        self.read = read
        self.outer_gradient = outer_gradient or OuterGradient()
        self.decay = decay
        self.decay_start = decay_start
        self.use_momentum = use_momentum
        self.max_learning_rate = max_learning_rate

    def gate_specs(self, net: AbstractMemoryNet) -> Mapping[str, GateSpec]:
        """See `AbstractRule.gate_specs`."""
        n_layers, n_rows = len(net.shapes), sum(d_in for d_in, _ in net.shapes)
        theta = GateSpec(
            size=n_layers,
            start=self.max_learning_rate / 2,
            high=self.max_learning_rate,
        )
        specs = {"learning_rate": theta, **self.loss.gate_specs()}
        if self.decay != "none":
            size = n_rows if self.decay == "channel" else n_layers
            specs["decay"] = GateSpec(size=size, start=self.decay_start)
        if self.use_momentum:
            # Little: theta / (1 - eta), summed over a chunk, must stay stable.
            specs["momentum"] = GateSpec(size=n_layers, start=0.1, neutral=1.0)
        return specs

    def init_state(self, weights: MemoryWeights) -> TitansState:
        """See `AbstractRule.init_state`."""
        weights = tuple(at_least_float32(w) for w in weights)
        return self.start_chunk((weights, jax.tree.map(jnp.zeros_like, weights)))

    def end_chunk(self, state: TitansState) -> tuple[MemoryWeights, MemoryWeights]:
        """See `AbstractRule.end_chunk`; the anchor will be the weights."""
        return state.weights, state.velocity

    def start_chunk(self, carry: tuple[MemoryWeights, MemoryWeights]) -> TitansState:
        """See `AbstractRule.start_chunk`."""
        weights, velocity = carry
        offset = jnp.zeros((), jnp.int32)
        return TitansState(
            weights=weights, velocity=velocity, anchor=weights, chunk_offset=offset
        )

    def surprise(
        self, net: AbstractMemoryNet, token: MemoryInputs, state: TitansState
    ) -> MemoryWeights:
        """See `AbstractRule.surprise`; before clipping."""
        anchor = self.outer_gradient.anchor(state.anchor)
        return token_surprise(net, self.loss, anchor, token)

    def step(
        self,
        net: AbstractMemoryNet,
        token: MemoryInputs,
        state: TitansState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, " d"], TitansState]:
        """See `AbstractRule.step`."""
        decay, momentum = self._decay_and_momentum(net, token)
        # As factors: u_t itself would be written to memory, and read for its norm.
        row = jax.tree.map(lambda leaf: leaf[None], token)
        anchor = self.outer_gradient.anchor(state.anchor)
        factors = surprise_factors(net, self.loss, anchor, row)
        (scale,) = clip_scale(factors_square_norm(*factors), self.clip)
        theta = token.gates["learning_rate"] * scale
        terms = zip(momentum, state.velocity, theta, *factors, strict=True)
        velocity = tuple(
            eta * s - jnp.outer(a[0], rate * g[0]) for eta, s, rate, a, g in terms
        )
        weights = tuple(
            (1 - alpha[:, None]) * m + s
            for alpha, m, s in zip(decay, state.weights, velocity, strict=True)
        )
        if (target := self._target(initial, weights)) is not None:
            weights = tuple(
                m + alpha[:, None] * m0
                for alpha, m, m0 in zip(decay, weights, target, strict=True)
            )
        seen = weights if self.read == "after" else state.weights
        state = dataclasses.replace(state, weights=weights, velocity=velocity)
        return net(seen, token.queries), state

    def prepare(
        self,
        net: AbstractMemoryNet,
        inputs: MemoryInputs,
        is_real: Bool[Array, " chunk"],
    ) -> tuple[MemoryInputs, Bool[Array, " chunk"], list[ChunkDecay] | None]:
        """See `AbstractPreparedRule.prepare`; None where factors are too large."""
        is_large = self.decay == "channel"
        factors = None if is_large else self._factors(net, inputs, is_real)
        return inputs, is_real, factors

    def chunk_prepared(
        self,
        net: AbstractMemoryNet,
        prepared: tuple[MemoryInputs, Bool[Array, " chunk"], list[ChunkDecay] | None],
        state: TitansState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, "chunk d"], TitansState]:
        """See `AbstractPreparedRule.chunk_prepared`."""
        inputs, is_real, written = prepared
        written = written or self._factors(net, inputs, is_real)
        seen = written
        if self.read == "before":
            seen = [jax.vmap(ChunkDecay.before_own_write)(layer) for layer in written]
        target = self._target(initial, state.weights)
        anchor = self.outer_gradient.anchor(state.anchor)
        layer_inputs, gradients = surprise_factors(net, self.loss, anchor, inputs)
        scale = clip_scale(factors_square_norm(layer_inputs, gradients), self.clip)
        # Negative, as in descent: a sign costs nothing on a vector.
        rates = -(inputs.gates["learning_rate"] * scale[:, None]).T[:, None]

        def linear(layer: int, x: Float[Array, "chunk d_in"]) -> Array:
            factors = seen[layer]
            scores = decayed_scores(x, layer_inputs[layer], factors.write_weights)
            y = scaled_product(factors.carry_weights, x, state.weights[layer])
            y = y + scaled_product(factors.carry_velocity, x, state.velocity[layer])
            y = y + (scores * rates[layer]) @ gradients[layer]
            if target is not None:
                y = y + scaled_product(1 - factors.carry_weights, x, target[layer])
            return save_for_backward(y)

        reads = net.forward(linear, inputs.queries)
        weights, velocity = [], []
        for layer, (a, g) in enumerate(zip(layer_inputs, gradients, strict=True)):
            factors, rate = written[layer], rates[layer]
            kept = factors.carry_weights[:, -1:]
            m = kept * state.weights[layer]
            m = m + factors.carry_velocity[:, -1:] * state.velocity[layer]
            m = m + weighted_outer(rate * factors.write_weights[:, -1], a, g)
            if target is not None:
                m = m + (1 - kept) * target[layer]
            weights.append(m)
            s = factors.velocity_carry[0] * state.velocity[layer]
            velocity.append(s + weighted_outer(rate * factors.velocity_write[:1], a, g))
        return reads, dataclasses.replace(
            state, weights=tuple(weights), velocity=tuple(velocity)
        )

    def _factors(
        self,
        net: AbstractMemoryNet,
        inputs: MemoryInputs,
        is_real: Bool[Array, " chunk"],
    ) -> list[ChunkDecay]:
        """Factors of each memory layer; leading axis: channels, or one for all."""
        decay, momentum = self._decay_and_momentum(net, inputs)
        over_channels = jax.vmap(chunk_decay, in_axes=(1, None, None))
        # Without a gate eta, nobody has made it neutral at padding yet.
        return [
            over_channels(alpha, jnp.where(is_real, eta, 1), is_real)
            for alpha, eta in zip(decay, momentum, strict=True)
        ]

    def _decay_and_momentum(
        self, net: AbstractMemoryNet, inputs: MemoryInputs
    ) -> tuple[list[Float[Array, "*seq channels"]], list[Float[Array, "*seq"]]]:
        """Alpha and eta of each memory layer, zero where there is no such gate."""
        zeros = jnp.zeros_like(inputs.gates["learning_rate"])
        alphas = inputs.gates["decay"] if self.decay != "none" else zeros
        etas = inputs.gates["momentum"] if self.use_momentum else zeros
        widths = [d_in if self.decay == "channel" else 1 for d_in, _ in net.shapes]
        ends = list(itertools.accumulate(widths))[:-1]
        return jnp.split(alphas, ends, axis=-1), list(jnp.moveaxis(etas, -1, 0))

    def _target(
        self, initial: MemoryWeights | None, like: MemoryWeights
    ) -> MemoryWeights | None:
        """Where forgetting leads; None for zero."""
        if self.decay_towards == "zero":
            return None
        if initial is None:
            raise ValueError(
                'decay_towards="initial" needs the initial weights M_0, got '
                "initial=None. Pass initial=... or use decay_towards='zero'."
            )
        return tuple(m0.astype(w.dtype) for m0, w in zip(initial, like, strict=True))
