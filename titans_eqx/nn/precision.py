"""Widening of half precision, where many small numbers are added up."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def at_least_float32(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Half precision as float32; wider numbers unchanged."""
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def wide_dtype(x: Float[Array, "*shape"]) -> jnp.dtype:
    """The dtype of `at_least_float32`."""
    return jnp.dtype(jnp.float32) if x.dtype.itemsize < 4 else x.dtype
