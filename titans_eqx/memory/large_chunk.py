"""A rule that reads the weights of the chunk's start, and writes at the chunk's end.

    u_t = grad_M loss(M(k_t), v_t)    at the weights M of the chunk's start
    y_t = M(q_t)
    S_t = f_t S_{t-1} - theta_t u_t
    M  <- update(M, S)                at the end of the chunk

Within a chunk no token waits for another, so a chunk of thousands of tokens is a few
large matrix products, and nothing of size chunk times chunk is ever made. What happens
at its end, and which factor `f` the sum has, is an `AbstractChunkUpdate`. With
`GradientUpdate` this is the global memory of TNT (arXiv 2511.07343); with `MuonUpdate`
that of large-chunk test-time training, and of ATLAS once per chunk.
"""

from abc import abstractmethod
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.decay import SMALLEST_FACTOR, weighted_outer
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


class LargeChunkState(AbstractRuleState):
    """Weights that wait for the end of the chunk, and what it will do to them."""

    weights: MemoryWeights  # of the chunk's start
    update: MemoryWeights  # S_t
    kept: Float[Array, " n_memory_layers"]  # product of the chunk's 1 - alpha so far
    rate: Float[Array, " n_memory_layers"]  # sum of its theta, over the chunk's length
    chunk_offset: Int[Array, ""]


class AbstractChunkUpdate(eqx.Module):
    """How the surprises of a chunk are added up, and what their sum changes."""

    @abstractmethod
    def gate_specs(self, n_memory_layers: int) -> Mapping[str, GateSpec]:
        """Gates beside `decay` and `learning_rate`."""

    @abstractmethod
    def factor(
        self,
        keep: Float[Array, "*rows n_memory_layers"],
        gates: Mapping[str, Float[Array, "*rows _"]],
    ) -> Float[Array, "*rows n_memory_layers"]:
        """`f_t`, in [0, 1], given `1 - alpha_t`; 1 where the gates are neutral."""

    @abstractmethod
    def initial(self, weights: Float[Array, "d_in d_out"]) -> Array:
        """The weights of a memory layer before the first token."""

    @abstractmethod
    def __call__(
        self,
        weights: Float[Array, "d_in d_out"],
        update: Float[Array, "d_in d_out"],
        kept: Float[Array, ""],
        rate: Float[Array, ""],
    ) -> tuple[Float[Array, "d_in d_out"], Float[Array, "d_in d_out"]]:
        """The end of a chunk, for one memory layer.

        Must change nothing before the first token of a chunk, where `kept` is 1, `rate`
        is 0, and `update` is as it was returned.

        Args:
            weights: Those of the chunk's start.
            update: The sum `S` at its end.
            kept: Product of the chunk's `1 - alpha`.
            rate: Mean of its learning rates.

        Returns:
            The weights, and the sum that the next chunk starts from.
        """


class GradientUpdate(AbstractChunkUpdate):
    """Gradient descent: the Titans rule without momentum, in one step per chunk."""

    def gate_specs(self, n_memory_layers: int) -> Mapping[str, GateSpec]:
        """None."""
        return {}

    def factor(
        self,
        keep: Float[Array, "*rows n_memory_layers"],
        gates: Mapping[str, Float[Array, "*rows _"]],
    ) -> Float[Array, "*rows n_memory_layers"]:
        """See `AbstractChunkUpdate.factor`: forgetting, as for the weights."""
        return keep

    def initial(self, weights: Float[Array, "d_in d_out"]) -> Array:
        """Those drawn."""
        return weights

    def __call__(
        self,
        weights: Float[Array, "d_in d_out"],
        update: Float[Array, "d_in d_out"],
        kept: Float[Array, ""],
        rate: Float[Array, ""],
    ) -> tuple[Float[Array, "d_in d_out"], Float[Array, "d_in d_out"]]:
        """See `AbstractChunkUpdate.__call__`."""
        return kept * weights + update, jnp.zeros_like(update)


class LargeChunkRule(AbstractRule[LargeChunkState]):
    """Gates alpha (`decay`) and theta (`learning_rate`), and those of the update."""

    update: AbstractChunkUpdate
    loss: AbstractInnerLoss

    chunk_len: int = eqx.field(static=True)
    clip: float = eqx.field(static=True)
    outer_gradient: OuterGradient = eqx.field(static=True)
    use_decay: bool = eqx.field(static=True)
    decay_start: Start = eqx.field(static=True)
    max_learning_rate: float = eqx.field(static=True)

    def __init__(
        self,
        update: AbstractChunkUpdate | None = None,
        *,
        chunk_len: int = 256,
        loss: AbstractInnerLoss | None = None,
        clip: float = 1.0,
        outer_gradient: OuterGradient | None = None,
        use_decay: bool = True,
        decay_start: Start = 0.01,
        max_learning_rate: float = 0.1,
    ) -> None:
        """Choose the options of the rule.

        Args:
            update: What the end of a chunk does; default `GradientUpdate()`.
            chunk_len: Tokens between two changes of the weights.
            loss: The inner loss; default `SquaredError()`.
            clip: Norm of a surprise that is written in full; 0 = no clipping.
            outer_gradient: Where the outer gradient stops; default `OuterGradient()`.
            use_decay: Whether there is a gate alpha; without it alpha is zero.
            decay_start: alpha before training, see `Start`.
            max_learning_rate: Upper bound of theta, which starts at half of it.
        """
        self.update = GradientUpdate() if update is None else update
        self.loss = SquaredError() if loss is None else loss
        self.chunk_len = chunk_len
        self.clip = clip
        self.outer_gradient = outer_gradient or OuterGradient()
        self.use_decay = use_decay
        self.decay_start = decay_start
        self.max_learning_rate = max_learning_rate

    def gate_specs(self, net: AbstractMemoryNet) -> Mapping[str, GateSpec]:
        """See `AbstractRule.gate_specs`."""
        size, high = len(net.shapes), self.max_learning_rate
        specs = {
            "learning_rate": GateSpec(size=size, start=high / 2, high=high),
            **self.update.gate_specs(size),
            **self.loss.gate_specs(),
        }
        if self.use_decay:
            specs["decay"] = GateSpec(size=size, start=self.decay_start)
        return specs

    def init_state(self, weights: MemoryWeights) -> LargeChunkState:
        """See `AbstractRule.init_state`."""
        weights = tuple(self.update.initial(at_least_float32(w)) for w in weights)
        return self.start_chunk((weights, jax.tree.map(jnp.zeros_like, weights)))

    def end_chunk(self, state: LargeChunkState) -> tuple[MemoryWeights, MemoryWeights]:
        """See `AbstractRule.end_chunk`: what was added up is written."""
        layers = zip(state.weights, state.update, state.kept, state.rate, strict=True)
        weights, update = zip(*(self.update(*layer) for layer in layers), strict=True)
        return weights, update

    def start_chunk(
        self, carry: tuple[MemoryWeights, MemoryWeights]
    ) -> LargeChunkState:
        """See `AbstractRule.start_chunk`."""
        weights, update = carry
        zeros = jnp.zeros(len(weights), weights[0].dtype)
        return LargeChunkState(
            weights=weights,
            update=update,
            kept=zeros + 1,
            rate=zeros,
            chunk_offset=jnp.zeros((), jnp.int32),
        )

    def surprise(
        self, net: AbstractMemoryNet, token: MemoryInputs, state: LargeChunkState
    ) -> MemoryWeights:
        """See `AbstractRule.surprise`; before clipping."""
        weights = self.outer_gradient.anchor(state.weights)
        return token_surprise(net, self.loss, weights, token)

    def step(
        self,
        net: AbstractMemoryNet,
        token: MemoryInputs,
        state: LargeChunkState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, " d"], LargeChunkState]:
        """See `AbstractRule.step`."""
        surprise = self.surprise(net, token, state)
        rate = token.gates["learning_rate"]
        theta = rate * clip_scale(square_norm(surprise), self.clip)
        keep = self._keep(token)
        factor = self.update.factor(keep, token.gates)
        update = tuple(
            factor[layer] * s - theta[layer] * u
            for layer, (s, u) in enumerate(zip(state.update, surprise, strict=True))
        )
        return net(state.weights, token.queries), LargeChunkState(
            weights=state.weights,
            update=update,
            kept=state.kept * keep,
            rate=state.rate + rate / self.chunk_len,
            chunk_offset=state.chunk_offset,
        )

    def chunk(
        self,
        net: AbstractMemoryNet,
        inputs: MemoryInputs,
        is_real: Bool[Array, " chunk"],
        state: LargeChunkState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, "chunk d"], LargeChunkState]:
        """See `AbstractRule.chunk`."""
        anchor = self.outer_gradient.anchor(state.weights)
        layer_inputs, gradients = surprise_factors(net, self.loss, anchor, inputs)
        rate = inputs.gates["learning_rate"]
        scale = clip_scale(factors_square_norm(layer_inputs, gradients), self.clip)
        theta = rate * scale[:, None]
        keep = self._keep(inputs)
        factor = self.update.factor(keep, inputs.gates)
        logs = jnp.cumsum(jnp.log(jnp.maximum(factor, SMALLEST_FACTOR)), axis=0)
        # Of each surprise, at the end; negative, as in descent.
        shares = -theta * jnp.exp(logs[-1:] - logs)
        update = tuple(
            jnp.exp(logs[-1, layer]) * s + weighted_outer(shares[None, :, layer], a, g)
            for layer, (s, a, g) in enumerate(
                zip(state.update, layer_inputs, gradients, strict=True)
            )
        )
        return net(state.weights, inputs.queries), LargeChunkState(
            weights=state.weights,
            update=update,
            kept=state.kept * jnp.prod(keep, axis=0),
            rate=state.rate + jnp.sum(rate, axis=0) / self.chunk_len,
            chunk_offset=state.chunk_offset,
        )

    def _keep(self, inputs: MemoryInputs) -> Float[Array, "*rows n_memory_layers"]:
        """`1 - alpha`."""
        if self.use_decay:
            return 1 - inputs.gates["decay"]
        return jnp.ones_like(inputs.gates["learning_rate"])
