"""The inner loss, and the surprise that is its gradient by the memory's weights.

A loss compares what the memory answers to a key with the value that belongs to it.
Rules need only its gradient at the memory's output; from there `token_surprise` goes
back to the weights of one token's memory, and `surprise_factors` to those of a whole
chunk without building any matrix.
"""

from abc import abstractmethod
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.inputs import GateSpec, MemoryInputs
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.nn.norm import bounded
from titans_eqx.nn.remat import save_for_backward
from titans_eqx.sharding.varying import vary_like

LayerRows = tuple[Float[Array, "chunk _"], ...]


class AbstractInnerLoss(eqx.Module):
    """A loss on each row of the memory's output."""

    @abstractmethod
    def gate_specs(self) -> Mapping[str, GateSpec]:
        """Gates that the loss itself needs, such as a threshold; often none."""

    @abstractmethod
    def gradient(
        self,
        outputs: Float[Array, "*rows d"],
        values: Float[Array, "*rows d"],
        gates: Mapping[str, Float[Array, "*rows _"]],
    ) -> Float[Array, "*rows d"]:
        """The gradient of the loss by the memory's outputs, row by row.

        Args:
            outputs: What the memory answers to the keys.
            values: What it should answer.
            gates: All gates of the rule, those of `gate_specs` among them.
        """


class SquaredError(AbstractInnerLoss):
    """`1/2 |M(k_t) - v_t|^2` (Titans, Eq. 12, halved)."""

    def gate_specs(self) -> Mapping[str, GateSpec]:
        """None."""
        return {}

    def gradient(
        self,
        outputs: Float[Array, "*rows d"],
        values: Float[Array, "*rows d"],
        gates: Mapping[str, Float[Array, "*rows _"]],
    ) -> Float[Array, "*rows d"]:
        """The error itself."""
        return outputs - values


def token_surprise(
    net: AbstractMemoryNet,
    loss: AbstractInnerLoss,
    weights: MemoryWeights,
    token: MemoryInputs,
) -> MemoryWeights:
    """The surprise `u_t` of one token, in full (Titans, Eq. 12).

    Args:
        net: Structure of the memory.
        loss: The inner loss.
        weights: Where the gradient is taken.
        token: One token, without a leading axis.

    Returns:
        The gradient of each memory layer's weights.
    """
    output, pull_back = jax.vjp(lambda weights: net(weights, token.keys), weights)
    return pull_back(_loss_gradient(loss, output, token))[0]


def square_norm(surprise: MemoryWeights) -> Float[Array, ""]:
    """`|u_t|^2` over all memory layers."""
    return jnp.sum(jnp.stack([jnp.sum(jnp.square(u)) for u in surprise]))


def surprise_factors(
    net: AbstractMemoryNet,
    loss: AbstractInnerLoss,
    weights: MemoryWeights,
    inputs: MemoryInputs,
) -> tuple[LayerRows, LayerRows]:
    """The surprise of each token of a chunk as rank-one factors.

    A zero added after each linear map has, row by row, the gradient of that map's
    output, so one backward pass serves any network.

    Args:
        net: Structure of the memory.
        loss: The inner loss.
        weights: Where all gradients of the chunk are taken.
        inputs: The chunk.

    Returns:
        Inputs `a_i` and output gradients `g_i` of each linear map; the gradient of that
        map's weights at token `i` is `a_i^T g_i`.
    """

    def outputs(zeros: LayerRows) -> tuple[Float[Array, "chunk d"], LayerRows]:
        layer_inputs: dict[int, Array] = {}

        def linear(layer: int, x: Array) -> Array:
            layer_inputs[layer] = x
            return save_for_backward(x @ weights[layer] + zeros[layer])

        y = net.forward(linear, inputs.keys)
        return y, tuple(layer_inputs[layer] for layer in range(len(weights)))

    chunk_len = inputs.keys.shape[0]
    zeros = tuple(jnp.zeros((chunk_len, w.shape[1]), w.dtype) for w in weights)
    zeros = vary_like(zeros, (weights, inputs))
    y, pull_back, layer_inputs = jax.vjp(outputs, zeros, has_aux=True)
    (gradients,) = pull_back(_loss_gradient(loss, y, inputs))
    return layer_inputs, tuple(save_for_backward(g) for g in gradients)


def _loss_gradient(
    loss: AbstractInnerLoss, outputs: Float[Array, "*rows d"], inputs: MemoryInputs
) -> Float[Array, "*rows d"]:
    """Of bounded values, or the way back through the network overflows."""
    gradient = loss.gradient(outputs, bounded(inputs.values), inputs.gates)
    return gradient.astype(outputs.dtype)  # some losses answer in that of the values


def factors_square_norm(
    layer_inputs: LayerRows, gradients: LayerRows
) -> Float[Array, " chunk"]:
    """`|u_i|^2` over all memory layers, from the factors of each token's surprise."""

    def square_norms(rows: Float[Array, "chunk _"]) -> Float[Array, " chunk"]:
        # Finite, or a zero key beside a gradient of 1e20, which a loss or deep weights
        # may have, would be written as 0 * inf.
        largest = jnp.finfo(rows.dtype).max
        return jnp.minimum(jnp.sum(jnp.square(rows), axis=1), largest)

    norms = [
        square_norms(a) * square_norms(g)
        for a, g in zip(layer_inputs, gradients, strict=True)
    ]
    return jnp.sum(jnp.stack(norms), axis=0)


def clip_scale(
    square_norm: Float[Array, "*tokens"], clip: float
) -> Float[Array, "*tokens"]:
    """The factor `min(1, c / |u_t|)` on theta; differentiable, and 1 for `clip` 0.

    It bounds what one token can write, so weights grow at most linearly with time and
    no finite input can overflow them.
    """
    if clip == 0.0:
        return jnp.ones_like(square_norm)
    return jax.lax.rsqrt(jnp.maximum(1.0, square_norm / clip**2))
