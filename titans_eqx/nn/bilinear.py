"""Functions of rows and of weights, linear in both, with gradients of their own.

They are primitives: forward and reverse mode, `vmap`, `shard_map` and derivatives of
any order work, where `jax.custom_vjp` knows reverse mode alone and hides from a
gradient that the weights are the same for a whole batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType
from jaxtyping import Array

from titans_eqx.nn.mesh_axes import mark_varying, varying_axes


def bilinear(
    name: str,
    product: Callable[..., Array],
    gradient_by_rows: Callable[..., Array],
    gradient_by_weight: Callable[..., Array],
) -> Callable[..., Array]:
    """A product whose gradients are given.

    Args:
        name: Of the primitive.
        product: Called with rows, which have any number of batch axes, and weights.
            Keyword arguments are handed on, here and below.
        gradient_by_rows: Called with the gradient of the result, a placeholder for the
            rows, and the weights.
        gradient_by_weight: Called with the gradient of the result, the rows, and a
            placeholder for the weights. Sums over the batch.

    Returns:
        The product, in the wider dtype of its operands. Where shardings are explicit it
        is the function given, with the gradients and shardings that JAX infers.
    """
    primitive = Primitive(name)

    def result_type(x: Any, weight: Any, **options: Any) -> Any:
        (result,) = jax.make_jaxpr(partial(product, **options))(x, weight).out_avals
        return result

    def batched(
        inputs: tuple[Array, Array],
        axes: tuple[int | None, int | None],
        **options: Any,
    ) -> tuple[Array, int]:
        x, weight = inputs
        x_axis, weight_axis = axes
        if x_axis is not None and weight_axis is None:
            return primitive.bind(jnp.moveaxis(x, x_axis, 0), weight, **options), 0
        return jax.vmap(partial(product, **options), axes)(x, weight), 0

    def apply(x: Array, weight: Array, **options: Any) -> Array:
        dtype = jnp.result_type(x, weight)
        x, weight = x.astype(dtype), weight.astype(dtype)
        if _is_sharded_explicitly(x) or _is_sharded_explicitly(weight):
            return product(x, weight, **options)
        axes = varying_axes(x, weight)
        return primitive.bind(
            mark_varying(axes, x), mark_varying(axes, weight), **options
        )

    primitive.def_impl(product)
    primitive.def_abstract_eval(result_type)
    ad.defbilinear(primitive, gradient_by_rows, gradient_by_weight)
    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, mlir.lower_fun(product, multiple_results=False))
    return apply


def _is_sharded_explicitly(x: Array) -> bool:
    return AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types
