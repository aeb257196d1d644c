"""What goes on in a memory while it reads one token."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.layer_state import NeuralMemoryState
from titans_eqx.memory.layer import HEAD_AXIS, NeuralMemory
from titans_eqx.memory.state import MemoryInputs
from titans_eqx.memory.surprise import square_norm, token_surprise
from titans_eqx.nn.padding import Span


class MemoryFigures(eqx.Module):
    """What a layer of memories does at one token."""

    surprise: Float[Array, " heads"]  # |u_t| over all memory layers, before clipping
    decay: Float[Array, "heads depth"]  # alpha_t; channel-wise: the mean over channels
    momentum: Float[Array, "heads depth"]  # eta_t
    step: Float[Array, "heads depth"]  # theta_t, before clipping
    weight_norm: Float[Array, " heads"]  # |M_t| over all memory layers, after the write


def observe(
    memory: NeuralMemory, x: Float[Array, " d_model"], state: NeuralMemoryState
) -> MemoryFigures:
    """Watch a memory read a token, changing nothing.

    Args:
        memory: The layer.
        x: What the layer is given at the token.
        state: Where it stands before the token.

    Returns:
        Surprise, gates and size of the memory of each head.
    """
    inputs, _ = memory.project(x[None, :], Span.whole(1), state.conv_inputs)
    _, after = memory.step(x, state)

    def one_head(inputs: MemoryInputs, anchor: MemoryWeights) -> Float[Array, ""]:
        key, value = inputs.keys[0], inputs.values[0]
        return jnp.sqrt(square_norm(token_surprise(memory.net, anchor, key, value)))

    surprise = jax.vmap(one_head, in_axes=(HEAD_AXIS, 0))
    decay = inputs.decay
    if isinstance(decay, tuple):
        decay = jnp.stack([jnp.mean(alpha, axis=-1) for alpha in decay], axis=-1)
    return MemoryFigures(
        surprise=surprise(inputs, state.memory.anchor),
        decay=decay[0],
        momentum=inputs.momentum[0],
        step=inputs.step[0],
        weight_norm=jnp.sqrt(jax.vmap(square_norm)(after.memory.weights)),
    )
