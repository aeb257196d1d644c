"""Rotary position embedding with the positions given by the caller."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rotate(
    x: Float[Array, "seq heads d_head"],
    positions: Int[Array, " seq"],
    *,
    base: float,
) -> Float[Array, "seq heads d_head"]:
    """Rotate queries or keys by their positions (half-split pairs).

    The product of a rotated query and a rotated key depends only on the difference of
    their positions, so any common origin may be used: ours is local to a segment or a
    window, which keeps angles small and exact however long the stream is.

    Args:
        x: Queries or keys; `d_head` is even.
        positions: Position of each row, in tokens.
        base: Wavelength base, dimensionless; the slowest pair turns once in about
            `2 pi base` tokens.

    Returns:
        The rotated rows.
    """
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=x.dtype) / half)
    angles = positions.astype(x.dtype)[:, None] * frequencies[None, :]
    cos, sin = jnp.cos(angles)[:, None, :], jnp.sin(angles)[:, None, :]
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate(
        [first * cos - second * sin, first * sin + second * cos], axis=-1
    )
