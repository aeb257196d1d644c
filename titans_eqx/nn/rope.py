"""Rotary position embedding with the positions given by the caller."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from titans_eqx.nn.precision import wide_dtype


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
    # Half precision has no odd numbers above 256.
    wide = wide_dtype(x)
    frequencies = base ** (-jnp.arange(half, dtype=wide) / half)
    angles = positions.astype(wide)[:, None] * frequencies[None, :]
    cos, sin = (turn(angles).astype(x.dtype)[:, None, :] for turn in (jnp.cos, jnp.sin))
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate(
        [first * cos - second * sin, first * sin + second * cos], axis=-1
    )
