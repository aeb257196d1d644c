"""Muon as the update of a memory: steps of one size in every direction (ATLAS).

Five steps of Newton and Schulz bring all singular values of a matrix near 1. They need
the whole matrix, so no closed form of a chunk has them; the rule acts once per chunk.
"""

from collections.abc import Mapping
from typing import Final

import jax.numpy as jnp
from jaxtyping import Array, Float

from titans_eqx.memory.inputs import GateSpec
from titans_eqx.memory.large_chunk import AbstractChunkUpdate

# (a, b, c) of the five steps X <- a X + (b A + c A^2) X with A = X X^T, as public
# large-chunk test-time training has them.
COEFFICIENTS: Final = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
SMALLEST_NORM: Final = 1e-7


class MuonUpdate(AbstractChunkUpdate):
    """`M <- A M + r NS(S)`, with momentum in `S` that goes on from chunk to chunk.

    `r` is the mean learning rate of the chunk and `A` what its decay leaves. Whatever
    the tokens, a chunk adds at most about `1.2 r` in any direction, so weights stay
    bounded even without clipping.

    The end of a chunk costs 15 products of `(n, n)` and `(n, m)` matrices, `n` the
    smaller side: little beside a chunk that is longer than `n`, and as much for every
    token of a stream that is read token by token.
    """

    def gate_specs(self, n_memory_layers: int) -> Mapping[str, GateSpec]:
        """Momentum, which lasts for about 50 tokens before training."""
        return {"momentum": GateSpec(size=n_memory_layers, start=0.98, neutral=1.0)}

    def factor(
        self,
        keep: Float[Array, "*rows n_memory_layers"],
        gates: Mapping[str, Float[Array, "*rows _"]],
    ) -> Float[Array, "*rows n_memory_layers"]:
        """See `AbstractChunkUpdate.factor`."""
        return gates["momentum"]

    def initial(self, weights: Float[Array, "d_in d_out"]) -> Array:
        """Those drawn."""
        return weights

    def __call__(
        self,
        weights: Float[Array, "d_in d_out"],
        update: Float[Array, "d_in d_out"],
        kept: Float[Array, ""],
        rate: Float[Array, ""],
    ) -> tuple[Float[Array, "d_in d_out"], Float[Array, "d_in d_out"]]:
        """See `AbstractChunkUpdate.__call__`."""
        return kept * weights + rate * orthogonalize(update), update


def orthogonalize(x: Float[Array, "d_in d_out"]) -> Float[Array, "d_in d_out"]:
    """A matrix with its singular values near 1, and its singular vectors.

    Those below a thousandth of the largest stay smaller; a zero matrix stays zero.
    """
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    # The norm as a root of a sum that is never zero, so that its gradient exists.
    x = x / jnp.sqrt(jnp.sum(jnp.square(x)) + SMALLEST_NORM**2)
    for a, b, c in COEFFICIENTS:
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if is_tall else x
