"""`W x` for each row `x`, with a gradient by `W` that suits the platform.

The gradient is the product of two arrays along their rows. Autodiff multiplies the
gradient of the result by the rows, and sums over all rows of a batch in one product. On
a CPU XLA transposes what it multiplies first, and works out again, along the wrong
axis, all that the gradient of the result was made of: with a small model that takes as
long as all its products. Two forms are not transposed: a product for each row of the
batch, summed afterwards, and, where those would be larger than what is multiplied, the
product with its factors exchanged.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from titans_eqx.nn.bilinear import bilinear


def rows_product(
    x: Float[Array, "*batch rows d_in"], weight: Float[Array, "d_out d_in"]
) -> Float[Array, "*batch rows d_out"]:
    """`x @ weight.T`."""
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore
    return _rows_product(x, weight, precision=precision)


def _product(x: Array, weight: Array, *, precision: str | None) -> Array:
    axes = (x.ndim - 1,), (1,)
    return jax.lax.dot_general(x, weight, (axes, ((), ())), precision=precision)


def _gradient_by_rows(
    gradient: Array, x: Any, weight: Array, *, precision: str | None
) -> Array:
    axes = (gradient.ndim - 1,), (0,)
    return jax.lax.dot_general(gradient, weight, (axes, ((), ())), precision=precision)


def _gradient_by_weight(
    gradient: Array, x: Array, weight: Any, *, precision: str | None
) -> Array:
    *batch, axis = range(x.ndim - 1)
    d_in, d_out = x.shape[-1], gradient.shape[-1]
    # No larger than what is multiplied.
    is_small = d_in * d_out <= x.shape[axis] * (d_in + d_out)
    if jax.default_backend() == "cpu" and is_small:
        axes = ((axis,), (axis,)), (batch, batch)
        of_rows = jax.lax.dot_general(gradient, x, axes, precision=precision)
        return jnp.sum(of_rows, axis=tuple(batch))
    axes = ((*batch, axis), (*batch, axis)), ((), ())
    return jax.lax.dot_general(x, gradient, axes, precision=precision).T


_rows_product = bilinear(
    "rows_product", _product, _gradient_by_rows, _gradient_by_weight
)
