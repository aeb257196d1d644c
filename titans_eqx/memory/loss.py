"""The surprise `u_t = grad_M 1/2 |M(k_t) - v_t|^2` (Titans, Eq. 12).

For one token as matrices, and for a whole chunk without building any.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.nn.remat import keep
from titans_eqx.sharding.varying import vary_like


def token_surprise(
    net: AbstractMemoryNet,
    anchor: MemoryWeights,
    key: Float[Array, " d"],
    value: Float[Array, " d"],
) -> MemoryWeights:
    """The surprise of one token, in full.

    Args:
        net: Structure of the memory.
        anchor: Weights at which the gradient is taken.
        key: Key k_t.
        value: Target v_t.

    Returns:
        The gradient of each memory layer's weights.
    """

    def loss(anchor: MemoryWeights) -> Float[Array, ""]:
        return 0.5 * jnp.sum(jnp.square(net(anchor, key) - value))

    return jax.grad(loss)(anchor)


def square_norm(surprise: MemoryWeights) -> Float[Array, ""]:
    """`|u_t|^2` over all memory layers."""
    return jnp.sum(jnp.stack([jnp.sum(jnp.square(u)) for u in surprise]))


def surprise_factors(
    net: AbstractMemoryNet,
    anchor: MemoryWeights,
    keys: Float[Array, "chunk d"],
    values: Float[Array, "chunk d"],
) -> tuple[tuple[Float[Array, "chunk _"], ...], tuple[Float[Array, "chunk _"], ...]]:
    """The surprise of each token of a chunk as rank-one factors.

    A zero added after each linear map has, row by row, the gradient of that map's
    output, so one backward pass serves any network.

    Args:
        net: Structure of the memory.
        anchor: Weights at which all gradients of the chunk are taken.
        keys: Keys k_i.
        values: Targets v_i.

    Returns:
        Inputs `a_i` and output gradients `g_i` of each linear map; the gradient of that
        map's weights at token `i` is `a_i^T g_i`.
    """

    def loss(
        zeros: tuple[Float[Array, "chunk _"], ...],
    ) -> tuple[Float[Array, ""], tuple[Float[Array, "chunk _"], ...]]:
        layer_inputs: list[Array] = []

        def linear(layer: int, x: Array) -> Array:
            layer_inputs.append(x)
            return keep(x @ anchor[layer] + zeros[layer])

        error = net.forward(linear, keys) - values
        return 0.5 * jnp.sum(jnp.square(error)), tuple(layer_inputs)

    zeros = tuple(
        jnp.zeros((keys.shape[0], d_out), keys.dtype) for _, d_out in net.shapes
    )
    zeros = vary_like(zeros, (anchor, keys, values))
    gradients, layer_inputs = jax.grad(loss, has_aux=True)(zeros)
    gradients = tuple(keep(g) for g in gradients)
    return layer_inputs, gradients
