"""Bias-free linear maps over rows."""

import equinox as eqx
import jax
from jaxtyping import Array, Float

from titans_eqx.nn.remat import save_for_backward


def linear_rows(
    linear: eqx.nn.Linear, x: Float[Array, "*rows d_in"]
) -> Float[Array, "*rows d_out"]:
    """The map of each row.

    Args:
        linear: A map without bias.
        x: Any number of rows, or one without an axis of rows.

    Returns:
        The mapped rows; functions under `remat` keep them.

    Raises:
        ValueError: If the map has a bias.
    """
    if linear.bias is not None:
        raise ValueError("linear_rows takes maps without bias; use jax.vmap(linear).")
    return save_for_backward(map_rows(linear.weight, x))


def map_rows(
    weight: Float[Array, "d_out d_in"], x: Float[Array, "*rows d_in"]
) -> Float[Array, "*rows d_out"]:
    """`W x` for each row `x`, with rows as rows of the product.

    Under `vmap` the product is `W x` and rows become its columns, which costs a
    transposition before and after it. A single row has none, and is faster so.
    """
    if x.ndim == 1:
        return weight @ x
    if x.shape[-2] == 1:
        return jax.vmap(map_rows, (None, -2), -2)(weight, x)
    return x @ weight.T
