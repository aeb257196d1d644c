"""Bias-free linear maps over rows."""

import equinox as eqx
import jax
from jaxtyping import Array, Float

from titans_eqx.nn.remat import save_for_backward


def linear_rows(
    linear: eqx.nn.Linear, x: Float[Array, "rows d_in"]
) -> Float[Array, "rows d_out"]:
    """`jax.vmap(linear)(x)`, with rows as rows of the product.

    Under `vmap` the product is `W x` and rows become its columns, which costs a
    transposition before and after it. A single row has none, and is faster so.

    Args:
        linear: A map without bias.
        x: Any number of rows.

    Returns:
        The mapped rows; functions under `remat` keep them.

    Raises:
        ValueError: If the map has a bias.
    """
    if linear.bias is not None:
        raise ValueError("linear_rows takes maps without bias; use jax.vmap(linear).")
    if x.shape[0] == 1:
        return save_for_backward(jax.vmap(linear)(x))
    return save_for_backward(x @ linear.weight.T)
