"""Polynomial features of keys and queries (ATLAS, arXiv 2505.23735).

A memory that is linear in all monomials up to degree `p` stores about `d^p / p!` pairs
where one that is linear in its input stores `d`.
"""

import math
from functools import partial
from itertools import combinations_with_replacement
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from titans_eqx.nn.flops import uncounted

# Columns of wider rows are indexed on a CPU too; of 64, both ways take as long.
WIDEST_PRODUCT: Final = 64


def n_monomials(d: int, degree: int) -> int:
    """Monomials in `d` variables of degree 1 up to `degree`."""
    return math.comb(d + degree, degree) - 1


def monomials(
    x: Float[Array, "*rows d"], degree: int
) -> Float[Array, "*rows features"]:
    """All monomials of degree `i = 1, ..., degree`, with coefficients `1 / i!`.

    Those of degree 1 come first, so degree 1 is the identity.
    """
    features = [x]
    for i in range(2, degree + 1):
        factors = np.array([*combinations_with_replacement(range(x.shape[-1]), i)])
        first, *others = (columns(x, indices) for indices in factors.T)
        features.append(math.prod(others, start=first) / math.factorial(i))
    return jnp.concatenate(features, axis=-1)


def columns(
    x: Float[Array, "*rows d"], indices: Int[np.ndarray, " n"]
) -> Float[Array, "*rows n"]:
    """`x[..., indices]` of finite numbers, on a CPU by a product with ones and zeros.

    There an index along the last axis is a gather in transposed order, and a scatter in
    the backward pass; of a single row both are short.
    """
    is_product = x.ndim > 1 and x.shape[-1] <= WIDEST_PRODUCT
    if jax.default_backend() != "cpu" or not is_product:
        return x[..., indices]
    is_picked = np.eye(x.shape[-1], dtype=x.dtype)[:, indices]
    exact = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    return uncounted(exact)(x, is_picked)
