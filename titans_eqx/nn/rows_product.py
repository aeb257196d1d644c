"""`W x` for each row `x`, as a primitive whose gradient by `W` suits the platform.

The gradient is the product of two arrays along their rows. Autodiff multiplies the
gradient of the result by the rows, and sums over all rows of a batch in one product. On
a CPU XLA transposes what it multiplies first, and works out again, along the wrong
axis, all that the gradient of the result was made of: with a small model that takes as
long as all its products. Two forms are not transposed: a product for each row of the
batch, summed afterwards, and, where those would be larger than what is multiplied, the
product with its factors exchanged.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType
from jaxtyping import Array, Float

from titans_eqx.nn.mesh_axes import mark_varying, varying_axes


def rows_product(
    x: Float[Array, "*batch rows d_in"], weight: Float[Array, "d_out d_in"]
) -> Float[Array, "*batch rows d_out"]:
    """`x @ weight.T`."""
    dtype = jnp.result_type(x, weight)
    x, weight = x.astype(dtype), weight.astype(dtype)
    if _is_sharded_explicitly(x) or _is_sharded_explicitly(weight):
        return x @ weight.T  # with gradients whose sharding JAX infers
    axes = varying_axes(x, weight)
    return _primitive.bind(
        mark_varying(axes, x),
        mark_varying(axes, weight),
        precision=jax.config.jax_default_matmul_precision,  # pyright: ignore
    )


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


def _batched(
    inputs: tuple[Array, Array], axes: tuple[int | None, int | None], **parameters: Any
) -> tuple[Array, int]:
    x, weight = inputs
    x_axis, weight_axis = axes
    if x_axis is not None and weight_axis is None:
        return _primitive.bind(jnp.moveaxis(x, x_axis, 0), weight, **parameters), 0
    return jax.vmap(partial(_product, **parameters), axes)(x, weight), 0


def _is_sharded_explicitly(x: Array) -> bool:
    return AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types


def _result_type(x: Any, weight: Any, *, precision: str | None) -> Any:
    product = jax.make_jaxpr(partial(_product, precision=precision))(x, weight)
    (result,) = product.out_avals
    return result


_primitive = Primitive("rows_product")
_primitive.def_impl(_product)
_primitive.def_abstract_eval(_result_type)
ad.defbilinear(_primitive, _gradient_by_rows, _gradient_by_weight)
batching.primitive_batchers[_primitive] = _batched
mlir.register_lowering(_primitive, mlir.lower_fun(_product, multiple_results=False))
