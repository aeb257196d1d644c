"""The weight that each token's surprise still has later in its chunk.

With `D_a[t, i] = prod_{i < j <= t} a_j` (lower triangular, ones on the diagonal) and
`n` one for a real token and zero for padding, the rule unrolls to

    M_t = A_t M + f_t S - sum_{i <= t} H[t, i] theta_i u_i
    S_b = e S - sum_i r_i theta_i u_i

    H = D_{1-alpha} diag(n) D_eta,   A = cumprod(1 - alpha)
    f = D_{1-alpha} (n * cumprod eta)
    r = last row of D_eta,           e = prod eta

where `M` and `S` are the weights and velocity before the chunk. The products of rows
with weights and with each other, scaled by such factors, are here too.
"""

from typing import Final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from titans_eqx.nn.remat import save_for_backward

# Logarithms of smaller factors are taken here: a gate of exactly 0 (or a decay of
# exactly 1) leaves 1e-30 of the past instead of nothing, and all sums stay finite.
SMALLEST_FACTOR: Final = 1e-30


class ChunkDecay(eqx.Module):
    """Decay factors of one memory layer over one chunk, at some of its positions."""

    carry_weights: Float[Array, " positions"]  # A: what is left of the weights
    carry_velocity: Float[Array, " positions"]  # f: what the velocity adds
    write_weights: Float[Array, "positions chunk"]  # H: what is left of each surprise
    velocity_carry: Float[Array, ""]  # e
    velocity_write: Float[Array, " chunk"]  # r

    def before_own_write(self) -> "ChunkDecay":
        """The factors of reads that precede the token's own write: a token earlier.

        Only the fields that reads use are meaningful.
        """
        return ChunkDecay(
            carry_weights=jnp.roll(self.carry_weights, 1).at[0].set(1.0),
            carry_velocity=jnp.roll(self.carry_velocity, 1).at[0].set(0.0),
            write_weights=jnp.roll(self.write_weights, 1, axis=0).at[0].set(0.0),
            velocity_carry=self.velocity_carry,
            velocity_write=self.velocity_write,
        )

    def at_end(self) -> "ChunkDecay":
        """The factors at the last position alone."""
        return ChunkDecay(
            carry_weights=self.carry_weights[-1:],
            carry_velocity=self.carry_velocity[-1:],
            write_weights=self.write_weights[-1:],
            velocity_carry=self.velocity_carry,
            velocity_write=self.velocity_write,
        )


def chunk_decay(
    decay: Float[Array, " chunk"],
    momentum: Float[Array, " chunk"] | None,
    is_real: Bool[Array, " chunk"],
) -> ChunkDecay:
    """The factors of one memory layer over one chunk.

    Args:
        decay: alpha of each token; 0 for padding.
        momentum: eta of each token; 1 for padding. None: there is no velocity.
        is_real: False for padding, which then changes nothing at all.
    """
    n = is_real.astype(decay.dtype)
    decay_products = lower_products(1 - decay)
    carry_weights = decay_products[:, 0] * (1 - decay[0])
    if momentum is None:
        zeros = jnp.zeros_like(decay)
        return ChunkDecay(
            carry_weights=carry_weights,
            carry_velocity=zeros,
            write_weights=decay_products * n[None, :],
            velocity_carry=zeros[0],
            velocity_write=zeros,
        )
    momentum_products = lower_products(momentum)
    momentum_so_far = momentum_products[:, 0] * momentum[0]
    return ChunkDecay(
        carry_weights=carry_weights,
        carry_velocity=decay_products @ (n * momentum_so_far),
        write_weights=(decay_products * n[None, :]) @ momentum_products,
        velocity_carry=momentum_so_far[-1],
        velocity_write=momentum_products[-1],
    )


def lower_products(factors: Float[Array, " chunk"]) -> Float[Array, "chunk chunk"]:
    """`D[t, i]`, the product of the factors after `i` up to `t`.

    Differences of cumulative logarithms, never ratios of products: a product underflows
    within a chunk long before its logarithm loses a digit.
    """
    is_past = jnp.tril(jnp.ones((factors.size, factors.size), bool))
    # A product with ones: the last step of a `cumsum` would be fused into the
    # exponential of each pair, at ten times the time.
    logs = jnp.matmul(
        is_past.astype(factors.dtype),
        jnp.log(jnp.maximum(factors, SMALLEST_FACTOR)),
        precision=jax.lax.Precision.HIGHEST,
    )
    differences = jnp.where(is_past, logs[:, None] - logs[None, :], -jnp.inf)
    return jnp.exp(differences)


def decayed_scores(
    x: Float[Array, "chunk d_in"],
    a: Float[Array, "chunk d_in"],
    write_weights: Float[Array, "channels chunk chunk"],
) -> Float[Array, "chunk chunk"]:
    """`sum_c x_t[c] H_c[t, i] a_i[c]`: what row `t` reads of the write of row `i`.

    Args:
        x: Rows that read.
        a: Rows that were written.
        write_weights: H of each channel, or one for all.
    """
    if write_weights.shape[0] == 1:
        return write_weights[0] * save_for_backward(x @ a.T)
    return jnp.einsum("tc,cti,ic->ti", x, write_weights, a)


def scaled_product(
    factors: Float[Array, "channels chunk"],
    x: Float[Array, "chunk d_in"],
    weights: Float[Array, "d_in d_out"],
) -> Float[Array, "chunk d_out"]:
    """`sum_c F_c[t] x_t[c] W[c]`.

    Args:
        factors: F of each channel, or one for all: `A`, `f` or `1 - A`.
        x: Rows that read.
        weights: W, with a row for each channel.
    """
    if factors.shape[0] == 1 and weights.shape[1] < weights.shape[0]:
        # The narrower side is scaled: that takes about as long as the product.
        return factors.T * save_for_backward(x @ weights)
    return (factors.T * x) @ weights


def weighted_outer(
    factors: Float[Array, "channels chunk"],
    a: Float[Array, "chunk d_in"],
    g: Float[Array, "chunk d_out"],
) -> Float[Array, "d_in d_out"]:
    """`sum_i F_c[i] a_i[c] g_i` in row `c`; factors as in `scaled_product`."""
    if factors.shape[0] == 1 and g.shape[1] < a.shape[1]:
        return a.T @ (factors.T * g)
    return (factors.T * a).T @ g
