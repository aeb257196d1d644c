"""Where the heads are: after the positions in projections, before them in a rule.

Taken in whole chunks, either way is one transposition for XLA, together with that to
the layout of a loop over chunks; otherwise it is a transposition and a copy.
"""

import math
from typing import Final

import jax.numpy as jnp
from jaxtyping import Array, Float

HEAD_AXIS: Final = 1  # of queries, keys, values and gates: "positions heads ..."


def heads_first(
    x: Float[Array, "positions heads d"], chunk_len: int
) -> Float[Array, "heads positions d"]:
    """For a map over heads of chunks of that length."""
    length, n_heads, d = x.shape
    chunk = math.gcd(length, chunk_len)
    chunks = x.reshape(length // chunk, chunk, n_heads, d)
    return jnp.moveaxis(chunks, 2, 0).reshape(n_heads, length, d)


def heads_last(
    x: Float[Array, "heads positions d"], chunk_len: int
) -> Float[Array, "positions heads d"]:
    """The inverse of `heads_first`."""
    n_heads, length, d = x.shape
    chunk = math.gcd(length, chunk_len)
    chunks = x.reshape(n_heads, length // chunk, chunk, d)
    return jnp.moveaxis(chunks, 0, 2).reshape(length, n_heads, d)
