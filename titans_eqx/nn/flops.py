"""FLOPs of the matrix products in a function, counted from its jaxpr.

A product of an `m k` and a `k n` matrix counts `2 m k n`; nothing else counts. A scan
counts its body once for each step, a branch the costliest of its alternatives, and
`shard_map` its body once for each device. What is counted is what is written, before
the compiler removes or rewrites anything, but for what is `uncounted`.
"""

import math
from collections.abc import Callable
from typing import Any, Final

import jax
from jax.extend import core
from jaxtyping import Array

_UNCOUNTED: Final = "uncounted"


def count_flops(function: Callable[..., Any], *inputs: Any) -> int:
    """FLOPs of the matrix products that one call does.

    Args:
        function: Traceable by JAX.
        *inputs: Trees of arrays, or of their shapes.

    Raises:
        ValueError: If products stand in a loop whose length is not known.
    """
    return _count(jax.make_jaxpr(function)(*inputs).jaxpr)


def uncounted(function: Callable[..., Array]) -> Callable[..., Array]:
    """The function, of which `count_flops` counts nothing, nor of its derivatives.

    For products that stand for something else, such as the choice of columns.
    """

    def run(*inputs: Array) -> Array:
        return function(*inputs)

    run.__name__ = _UNCOUNTED
    return jax.jit(run)


def _count(jaxpr: core.Jaxpr) -> int:
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: core.JaxprEqn) -> int:
    name, parameters = equation.primitive.name, equation.params
    inner = [_count(one) for one in core.jaxprs_in_params(parameters)]
    match name:
        case "dot_general":
            return _product_flops(equation)
        case "rows_product":
            return _rows_product_flops(equation)
        case "scan":
            return parameters["length"] * sum(inner)
        case "cond":
            return max(inner)
        case "shard_map":
            return parameters["mesh"].size * sum(inner)
        case "jit" if parameters["name"] == _UNCOUNTED:
            return 0
        case "while" if sum(inner) > 0:
            raise ValueError(
                "the FLOPs of a while loop cannot be counted, because its length is "
                "not known; write it as a scan."
            )
        case _:
            return sum(inner)


def _product_flops(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left: Any = equation.invars[0].aval
    result: Any = equation.outvars[0].aval
    n_summed = math.prod(left.shape[axis] for axis in contracted)
    return 2 * n_summed * math.prod(result.shape)


def _rows_product_flops(equation: core.JaxprEqn) -> int:
    weight: Any = equation.invars[1].aval
    result: Any = equation.outvars[0].aval
    return 2 * weight.shape[1] * math.prod(result.shape)
