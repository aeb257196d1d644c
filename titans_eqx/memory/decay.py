"""The weight that each token's surprise still has later in its chunk.

With `D_a[t, i] = prod_{i < j <= t} a_j` (lower triangular, ones on the diagonal) and
`n` one for a real token and zero for padding, the rule unrolls to

    M_t = A_t M + f_t S - sum_{i <= t} H[t, i] theta_i u_i
    S_b = e S - sum_i r_i theta_i u_i

    H = D_{1-alpha} diag(n) D_eta,   A = cumprod(1 - alpha)
    f = D_{1-alpha} (n * cumprod eta)
    r = last row of D_eta,           e = prod eta

where `M` and `S` are the weights and momentum before the chunk. None of it depends on
the memory, so it is computed for all chunks at once, outside the scan.
"""

from typing import Final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Logarithms of smaller factors are taken here: a gate of exactly 0 (or a decay of
# exactly 1) leaves 1e-30 of the past instead of nothing, and all sums stay finite.
SMALLEST_FACTOR: Final = 1e-30


class ChunkDecay(eqx.Module):
    """Decay factors of one memory layer over one chunk."""

    kept: Float[Array, " chunk"]  # A: what is left of the weights before the chunk
    pushed: Float[Array, " chunk"]  # f: what the momentum before the chunk adds
    written: Float[Array, "chunk chunk"]  # H: what is left of each token's surprise
    momentum_kept: Float[Array, ""]  # e
    momentum_written: Float[Array, " chunk"]  # r


def chunk_decay(
    decay: Float[Array, " chunk"],
    momentum: Float[Array, " chunk"],
    is_real: Bool[Array, " chunk"],
) -> ChunkDecay:
    """The factors of one memory layer over one chunk.

    Args:
        decay: alpha of each token; 0 for padding.
        momentum: eta of each token; 1 for padding.
        is_real: False for padding, which then changes nothing at all.

    Returns:
        The factors by which the chunk is read and written.
    """
    n = is_real.astype(decay.dtype)
    keep_products = _lower_products(1 - decay)
    momentum_products = _lower_products(momentum)
    momentum_so_far = momentum_products[:, 0] * momentum[0]
    return ChunkDecay(
        kept=keep_products[:, 0] * (1 - decay[0]),
        pushed=keep_products @ (n * momentum_so_far),
        written=(keep_products * n[None, :]) @ momentum_products,
        momentum_kept=momentum_so_far[-1],
        momentum_written=momentum_products[-1],
    )


def before_own_write(factors: ChunkDecay) -> ChunkDecay:
    """The factors as seen by a read that precedes the token's own write.

    Args:
        factors: Factors of reads that follow the write.

    Returns:
        The same, one token earlier; only the fields that reads use are meaningful.
    """
    return ChunkDecay(
        kept=jnp.roll(factors.kept, 1).at[0].set(1.0),
        pushed=jnp.roll(factors.pushed, 1).at[0].set(0.0),
        written=jnp.roll(factors.written, 1, axis=0).at[0].set(0.0),
        momentum_kept=factors.momentum_kept,
        momentum_written=factors.momentum_written,
    )


def _lower_products(factors: Float[Array, " chunk"]) -> Float[Array, "chunk chunk"]:
    """`D[t, i]`, the product of the factors after `i` up to `t`.

    Differences of cumulative logarithms, never ratios of products: a product underflows
    within a chunk long before its logarithm loses a digit.
    """
    logs = jnp.cumsum(jnp.log(jnp.maximum(factors, SMALLEST_FACTOR)))
    is_past = jnp.tril(jnp.ones((factors.size, factors.size), bool))
    differences = jnp.where(is_past, logs[:, None] - logs[None, :], -jnp.inf)
    return jnp.exp(differences)
