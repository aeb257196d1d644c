"""Memora: weights that are probabilities, written in their logarithms (MIRAS).

    u_t = grad_W loss(M(k_t), v_t)                at the anchor
    W_t = softmax((1 - alpha_t) log W_{t-1} - theta_t u_t),    y_t = M_t(q_t)

That is descent with the Kullback-Leibler divergence as retention (arXiv 2504.13173).
A softmax does not see a constant added to all its logits, so these obey a linear
recurrence, which has the closed form of `decay.py`:

    L_t = (1 - alpha_t) L_{t-1} - theta_t u_t,    W_t = softmax(L_t)

Reading: a slice is what one output of a linear map takes from the inputs (a column of
`W`), so each output is a weighted mean of the inputs, of their size whatever their
number. Forgetting leads to the plain mean. M_0 are the first logits. Logits must move
by whole units to be seen, so learning rates are larger than those of other rules.

Cost: no linear map with the weights of its own time is a product of rows, so the fast
form builds the logits of every token: `chunk d_in d_out` numbers for each memory layer,
where the Titans rule needs `chunk (chunk + d_in + d_out)`. Choose short chunks.
"""

from collections.abc import Mapping
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from titans_eqx.axes import MemoryWeights
from titans_eqx.errors import check_option
from titans_eqx.memory.decay import SMALLEST_FACTOR, chunk_decay, weighted_outer
from titans_eqx.memory.inputs import GateSpec, MemoryInputs, Start
from titans_eqx.memory.large_chunk import AbstractChunkUpdate
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


class MemoraState(AbstractRuleState):
    """Logits of the fast weights, and where gradients are taken."""

    logits: MemoryWeights  # L_t
    anchor: MemoryWeights  # the weights at the end of the last whole chunk
    chunk_offset: Int[Array, ""]

    def __init__(
        self, logits: MemoryWeights, anchor: MemoryWeights, chunk_offset: Int[Array, ""]
    ) -> None:
        """All but the weights, which the logits say."""
        self.logits = logits
        self.anchor = anchor
        self.chunk_offset = chunk_offset

    @property
    def weights(self) -> tuple[Float[Array, "*heads _ _"], ...]:
        """W_t."""
        return tuple(_softmax(x) for x in self.logits)


class MemoraRule(AbstractRule[MemoraState]):
    """Gates alpha (`decay`) and theta (`learning_rate`), one for each memory layer."""

    loss: AbstractInnerLoss

    chunk_len: int = eqx.field(static=True)
    clip: float = eqx.field(static=True)
    read: Literal["after", "before"] = eqx.field(static=True)
    outer_gradient: OuterGradient = eqx.field(static=True)
    decay_start: Start = eqx.field(static=True)
    max_learning_rate: float = eqx.field(static=True)

    def __init__(
        self,
        *,
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
            chunk_len: Tokens whose surprise is taken at the same anchor.
            loss: The inner loss; default `SquaredError()`.
            clip: Norm of a surprise that is written in full; 0 = no clipping.
            read: Whether a token reads after or before its own write.
            outer_gradient: Where the outer gradient stops; default `OuterGradient()`.
            decay_start: alpha before training, see `Start`.
            max_learning_rate: Upper bound of theta, which starts at half of it.
        """
        check_option("read", read, "after", "before")
        self.loss = SquaredError() if loss is None else loss
        self.chunk_len = chunk_len
        self.clip = clip
        self.read = read
        self.outer_gradient = outer_gradient or OuterGradient()
        self.decay_start = decay_start
        self.max_learning_rate = max_learning_rate

    def gate_specs(self, net: AbstractMemoryNet) -> Mapping[str, GateSpec]:
        """See `AbstractRule.gate_specs`."""
        size, high = len(net.shapes), self.max_learning_rate
        return {
            "decay": GateSpec(size=size, start=self.decay_start),
            "learning_rate": GateSpec(size=size, start=high / 2, high=high),
            **self.loss.gate_specs(),
        }

    def init_state(self, weights: MemoryWeights) -> MemoraState:
        """See `AbstractRule.init_state`; M_0 are the logits."""
        return self.start_chunk(tuple(at_least_float32(w) for w in weights))

    def end_chunk(self, state: MemoraState) -> MemoryWeights:
        """See `AbstractRule.end_chunk`: the logits."""
        return state.logits

    def start_chunk(self, carry: MemoryWeights) -> MemoraState:
        """See `AbstractRule.start_chunk`; the anchor is the weights."""
        return MemoraState(
            logits=carry,
            anchor=tuple(_softmax(x) for x in carry),
            chunk_offset=jnp.zeros((), jnp.int32),
        )

    def surprise(
        self, net: AbstractMemoryNet, token: MemoryInputs, state: MemoraState
    ) -> MemoryWeights:
        """See `AbstractRule.surprise`: by the weights, before clipping."""
        anchor = self.outer_gradient.anchor(state.anchor)
        return token_surprise(net, self.loss, anchor, token)

    def step(
        self,
        net: AbstractMemoryNet,
        token: MemoryInputs,
        state: MemoraState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, " d"], MemoraState]:
        """See `AbstractRule.step`."""
        surprise = self.surprise(net, token, state)
        scale = clip_scale(square_norm(surprise), self.clip)
        kept, theta = 1 - token.gates["decay"], token.gates["learning_rate"] * scale
        logits = tuple(
            kept[layer] * x - theta[layer] * u
            for layer, (x, u) in enumerate(zip(state.logits, surprise, strict=True))
        )
        new = MemoraState(
            logits=logits, anchor=state.anchor, chunk_offset=state.chunk_offset
        )
        seen = new if self.read == "after" else state
        return net(seen.weights, token.queries), new

    def chunk(
        self,
        net: AbstractMemoryNet,
        inputs: MemoryInputs,
        is_real: Bool[Array, " chunk"],
        state: MemoraState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, "chunk d"], MemoraState]:
        """See `AbstractRule.chunk`."""
        anchor = self.outer_gradient.anchor(state.anchor)
        layer_inputs, gradients = surprise_factors(net, self.loss, anchor, inputs)
        scale = clip_scale(factors_square_norm(layer_inputs, gradients), self.clip)
        theta = inputs.gates["learning_rate"] * scale[:, None]
        # Negative, as in descent.
        steps = tuple(-theta[:, i, None] * g for i, g in enumerate(gradients))
        written = [
            chunk_decay(inputs.gates["decay"][:, i], None, is_real)
            for i in range(len(steps))
        ]
        seen = written
        if self.read == "before":
            seen = [factors.before_own_write() for factors in written]

        def linear(layer: int, x: Float[Array, "chunk d_in"]) -> Array:
            factors = seen[layer]
            writes = layer_inputs[layer][:, :, None] * steps[layer][:, None, :]
            logits = factors.carry_weights[:, None, None] * state.logits[layer][None]
            logits = logits + jnp.tensordot(factors.write_weights, writes, axes=1)
            y = jnp.einsum("ti,tio->to", x, _softmax(logits))
            return save_for_backward(y)

        reads = net.forward(linear, inputs.queries)
        logits = tuple(
            factors.carry_weights[-1] * x
            + weighted_outer(factors.write_weights[-1:], a, g)
            for factors, x, a, g in zip(
                written, state.logits, layer_inputs, steps, strict=True
            )
        )
        return reads, MemoraState(
            logits=logits, anchor=state.anchor, chunk_offset=state.chunk_offset
        )


class SoftmaxUpdate(AbstractChunkUpdate):
    """Memora once per chunk: `W <- softmax(A log W + S)`, at the cost of any update.

    Not Memora with another chunk length, whose reads see the chunk's own tokens.
    """

    def gate_specs(self, n_memory_layers: int) -> Mapping[str, GateSpec]:
        """None."""
        return {}

    def factor(
        self,
        keep: Float[Array, "*rows n_memory_layers"],
        gates: Mapping[str, Float[Array, "*rows _"]],
    ) -> Float[Array, "*rows n_memory_layers"]:
        """See `AbstractChunkUpdate.factor`: forgetting, as for the logits."""
        return keep

    def initial(self, weights: Float[Array, "d_in d_out"]) -> Array:
        """Those whose logits were drawn."""
        return _softmax(weights)

    def __call__(
        self,
        weights: Float[Array, "d_in d_out"],
        update: Float[Array, "d_in d_out"],
        kept: Float[Array, ""],
        rate: Float[Array, ""],
    ) -> tuple[Float[Array, "d_in d_out"], Float[Array, "d_in d_out"]]:
        """See `AbstractChunkUpdate.__call__`."""
        logits = jnp.log(jnp.maximum(weights, SMALLEST_FACTOR))
        return _softmax(kept * logits + update), jnp.zeros_like(update)


def _softmax(logits: Float[Array, "*times d_in d_out"]) -> Array:
    """Over the inputs of the linear map."""
    return jax.nn.softmax(logits, axis=-2)
