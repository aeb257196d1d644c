"""Polynomial features of keys and queries (ATLAS, arXiv 2505.23735).

A memory that is linear in all monomials up to degree `p` stores about `d^p / p!` pairs
where one that is linear in its input stores `d`.
"""

import math
from itertools import combinations_with_replacement

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


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
        factors = combinations_with_replacement(range(x.shape[-1]), i)
        indices = np.array(list(factors))
        features.append(jnp.prod(x[..., indices], axis=-1) / math.factorial(i))
    return jnp.concatenate(features, axis=-1)
