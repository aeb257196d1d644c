"""Weighted sums of the last few rows of each channel, with gradients of their own.

Autodiff adds up a padded copy of the gradient for each tap of the kernel, and sums each
tap's products over time by itself, of a shifted copy of the rows. Here the gradient by
the rows is a convolution again. That by the kernel first adds parts of the time up,
number by number and for all taps at once: on a CPU a sum over an axis takes as long as
it has rows, whatever is summed. Without parts it takes no longer than by autodiff.
"""

from typing import Any, Final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from titans_eqx.nn.bilinear import bilinear
from titans_eqx.nn.precision import at_least_float32

CPU_PARTS: Final = 4  # of 8 or 16 the sum is as fast, and the program larger


def depthwise_product(
    rows: Float[Array, "*batch extended channels"],
    kernel: Float[Array, "taps channels"],
) -> Float[Array, "*batch positions channels"]:
    """`y_t = sum_i kernel_i rows_{t + i}`: `taps - 1` fewer rows than were given."""
    return _depthwise(rows, kernel)


def _product(rows: Array, kernel: Array) -> Array:
    n_taps, ndim = kernel.shape[0], rows.ndim
    length = rows.shape[-2] - n_taps + 1
    taps = kernel.reshape(n_taps, *[1] * (ndim - 1), -1)
    return sum(
        (taps[i] * _rows(rows, i, length) for i in range(1, n_taps)),
        start=taps[0] * _rows(rows, 0, length),
    )


def _gradient_by_rows(gradient: Array, rows: Any, kernel: Array) -> Array:
    n_more = kernel.shape[0] - 1
    around = [(0, 0)] * (gradient.ndim - 2) + [(n_more, n_more), (0, 0)]
    return depthwise_product(jnp.pad(gradient, around), kernel[::-1])


def _gradient_by_kernel(gradient: Array, rows: Array, kernel: Any) -> Array:
    length = gradient.shape[-2]
    is_cut = jax.default_backend() == "cpu" and length % CPU_PARTS == 0
    n_parts = CPU_PARTS if is_cut else 1
    part = length // n_parts
    wide_gradient, wide_rows = at_least_float32(gradient), at_least_float32(rows)

    def of_tap(tap: int) -> Array:
        products = [
            _rows(wide_gradient, i * part, part)
            * _rows(wide_rows, i * part + tap, part)
            for i in range(n_parts)
        ]
        return sum(products[1:], start=products[0])

    taps = jnp.stack([of_tap(tap) for tap in range(rows.shape[-2] - length + 1)])
    return jnp.sum(taps, axis=tuple(range(1, taps.ndim - 1))).astype(rows.dtype)


def _rows(x: Array, start: int, n_rows: int) -> Array:
    return jax.lax.slice_in_dim(x, start, start + n_rows, axis=-2)


_depthwise = bilinear(
    "depthwise_product", _product, _gradient_by_rows, _gradient_by_kernel
)
