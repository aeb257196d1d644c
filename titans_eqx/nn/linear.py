"""Linear maps over rows."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from titans_eqx.nn.remat import save_for_backward
from titans_eqx.nn.rows_product import rows_product


def linear_rows(
    linear: eqx.nn.Linear, x: Float[Array, "*rows d_in"]
) -> Float[Array, "*rows d_out"]:
    """`linear` of each row.

    Args:
        linear: The map.
        x: Any number of rows, or one without an axis of rows.

    Returns:
        The mapped rows; functions under `remat` keep the product.
    """
    y = save_for_backward(map_rows(linear.weight, x))
    return y if linear.bias is None else y + jnp.broadcast_to(linear.bias, y.shape)


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
    return rows_product(x, weight)
