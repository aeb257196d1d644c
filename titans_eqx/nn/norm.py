"""Norms and bounds without parameters; `equinox.nn.RMSNorm` learns a scale."""

from typing import Final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

UNIT_NORM_EPS: Final = 1e-6
STANDARDIZE_EPS: Final = 1e-5
# Far beyond any use; its square, summed and multiplied by weights, is still finite in
# single precision, and so are the gradients through it.
LARGEST_ENTRY: Final = 1e9


def bounded(x: Float[Array, "*lead d"]) -> Float[Array, "*lead d"]:
    """Entries beyond 1e9 count as that, so that what is computed of them is finite."""
    return jnp.clip(x, -LARGEST_ENTRY, LARGEST_ENTRY)


def unit_norm(x: Float[Array, "*lead d"]) -> Float[Array, "*lead d"]:
    """Scale vectors to unit L2 norm, as queries and keys are (section 4.4).

    Args:
        x: Vectors along the last axis. A zero vector stays zero, with finite gradient.

    Returns:
        Vectors of norm 1, or less where the input is tiny. Zero where the sum of
        squares overflows: in float32 from norms of about 1.8e19.
    """
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(square + UNIT_NORM_EPS)


def standardize(x: Float[Array, "*lead d"]) -> Float[Array, "*lead d"]:
    """Layer normalisation with no scale and no shift.

    Args:
        x: Vectors along the last axis.

    Returns:
        Vectors of mean 0 and (up to a small epsilon) variance 1. Zero where the sum of
        squares overflows: in float32 from deviations of about 1e19. NaN where the sum
        of the entries does, from about 3.4e38.
    """
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + STANDARDIZE_EPS)
