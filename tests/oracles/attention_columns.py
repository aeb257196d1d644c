"""What an attention module computes between its projections, head by head in NumPy."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from titans_eqx.attention.heads import AttentionHeads


def columns(heads: AttentionHeads, x: Array, *others: Array) -> list[list[np.ndarray]]:
    """For each head: queries, keys, values of `x`, then keys, values of all others.

    The persistent tokens come last, as the oracles have it.
    """
    rows = [
        heads.queries(x),
        *(
            project(tokens)
            for tokens in (x, *others, heads.persistent_tokens)
            for project in (heads.keys, heads.values)
        ),
    ]
    return [[np.asarray(row[:, i]) for row in rows] for i in range(heads.n_heads)]


def joined(heads: AttentionHeads, outputs: list[np.ndarray]) -> Array:
    """The heads' outputs back in the stream."""
    return heads.output(jnp.stack([jnp.asarray(y) for y in outputs], axis=1))
