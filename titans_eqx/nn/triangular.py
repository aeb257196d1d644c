"""Systems with a unit lower triangular matrix, by matrix products alone.

Not `jax.scipy.linalg.solve_triangular`: on CPUs it goes through LAPACK, whose batches
jaxlib hands to the thread pool that it is running on. Where two loops of a program (or
two devices) do so at the same time, each waits for the threads of the other, for ever
(seen with jaxlib 0.10.2).
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from titans_eqx.nn.remat import save_for_backward


@jax.custom_jvp
def unit_lower_inverse(
    strict: Float[Array, "chunk chunk"],
) -> Float[Array, "chunk chunk"]:
    """`(I + strict)^-1`, from the inverses of ever larger blocks on its diagonal.

    Of two neighbours `P` and `Q` with `C` below `P`, the inverse of both together is
    `P^-1` and `Q^-1` with `-Q^-1 C P^-1` below. Differentiated as an inverse, not
    through these steps.

    Args:
        strict: Zero on and above the diagonal.
    """
    n = strict.shape[0]
    if n == 1:
        # Always 1, but a function of the input: `jax.vmap` in a loop mistakes the axes
        # of the gradient by one that is not.
        return 1 - strict
    n_padded = 2 ** (n - 1).bit_length()
    padded = jnp.pad(strict, (0, n_padded - n))
    # Like the matrix, so that it varies over the same axes of a mesh.
    size, blocks = 1, jnp.ones_like(strict, shape=(n_padded, 1, 1))
    while size < n_padded:
        pattern = "(i a) (j b) -> a b i j"
        pairs = rearrange(padded, pattern, a=2 * size, b=2 * size)
        pairs = jnp.moveaxis(jnp.diagonal(pairs, axis1=2, axis2=3), -1, 0)
        first, second = blocks[0::2], blocks[1::2]
        below = _product(-second, _product(pairs[:, size:, :size], first))
        upper = jnp.concatenate([first, jnp.zeros_like(first)], axis=2)
        lower = jnp.concatenate([below, second], axis=2)
        size, blocks = 2 * size, jnp.concatenate([upper, lower], axis=1)
    return blocks[0, :n, :n]


@unit_lower_inverse.defjvp
def _unit_lower_inverse_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    inverse = save_for_backward(unit_lower_inverse(*primals))
    return inverse, -_product(_product(inverse, *tangents), inverse)


@jax.custom_jvp
def solve_unit_lower(
    strict: Float[Array, "chunk chunk"],
    inverse: Float[Array, "chunk chunk"],
    right: Float[Array, "chunk d"],
) -> Float[Array, "chunk d"]:
    """The solution `x` of `(I + strict) x = right`.

    Args:
        strict: Zero on and above the diagonal.
        inverse: `unit_lower_inverse` of it, which may serve many right sides. The
            gradient of the solution goes to `strict` and `right` alone.
        right: The right side.
    """
    return _product(inverse, right)


@solve_unit_lower.defjvp
def _solve_unit_lower_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    # The change of the matrix stands for that of its inverse. The inverse itself is
    # differentiated only in derivatives of this one.
    strict_change, _, right_change = tangents
    solution = save_for_backward(solve_unit_lower(*primals))
    change = right_change - _product(strict_change, solution)
    return solution, _product(primals[1], change)


def _product(a: Array, b: Array) -> Array:
    """In full precision, since errors add up from row to row."""
    return jnp.matmul(a, b, precision="highest")
