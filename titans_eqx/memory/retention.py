"""Retention beyond decay: maps of a memory's weights at the end of a chunk (MIRAS).

Such a map is not linear, so it has no place among the products of a chunk (`decay.py`).
It is taken once, where a chunk ends, and within a chunk the weights are a constant
times what the rule accumulates; see `retention_rule.py`. Chunks of one token are the
published rules.
"""

from abc import abstractmethod
from typing import Final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SMALLEST_NORM: Final = 1.0
SMALLEST_SCALE: Final = 1e-30  # in single precision, powers of large norms underflow


class AbstractRetention(eqx.Module):
    """What a finished chunk keeps of one memory layer."""

    @abstractmethod
    def __call__(
        self, accumulated: Float[Array, "d_in d_out"], n_tokens: Int[Array, ""]
    ) -> tuple[Float[Array, "d_in d_out"], Float[Array, ""]]:
        """What the next chunk starts from.

        Args:
            accumulated: `A` at the end of the chunk.
            n_tokens: Tokens of the chunk; 0 for M_0, before any.

        Returns:
            `A`, and the scale `s > 0` of the weights `s A` until that chunk ends.
        """


class ElasticNet(AbstractRetention):
    """`W <- sign(W) max(|W| - n gamma, 0)` after `n` tokens: small weights become zero.

    With a quadratic decay (`alpha`) this is the elastic net of MIRAS, which shrinks by
    `gamma` after every token; a chunk does so once, by as much.
    """

    threshold: float = eqx.field(static=True, default=1e-4)

    def __check_init__(self) -> None:
        """Check the threshold.

        Raises:
            ValueError: If it is negative.
        """
        if self.threshold < 0:
            raise ValueError(
                f"threshold must not be negative, got threshold={self.threshold}."
            )

    def __call__(
        self, accumulated: Float[Array, "d_in d_out"], n_tokens: Int[Array, ""]
    ) -> tuple[Float[Array, "d_in d_out"], Float[Array, ""]]:
        """See `AbstractRetention.__call__`."""
        threshold = self.threshold * n_tokens.astype(accumulated.dtype)
        shrunk = jnp.abs(accumulated) - threshold
        shrunk = jnp.sign(accumulated) * jnp.maximum(shrunk, 0)
        return shrunk, jnp.ones((), accumulated.dtype)


class NormRetention(AbstractRetention):
    """`W = A / |A|_q^(q-2)`, over all numbers of the matrix (Moneta, with q = 4).

    Reading: as published, weights of small norm become large ones without bound, and
    what is forgotten comes back stronger. Here norms below 1 count as 1. So no chunk
    starts from weights of a norm above 1 if `q >= 3`, and no step is larger than in the
    rule itself.
    """

    power: float = eqx.field(static=True, default=4.0)

    def __check_init__(self) -> None:
        """Check the power.

        Raises:
            ValueError: If it is not above 2, where nothing is normalised.
        """
        if self.power <= 2:
            raise ValueError(f"power must be above 2, got power={self.power}.")

    def __call__(
        self, accumulated: Float[Array, "d_in d_out"], n_tokens: Int[Array, ""]
    ) -> tuple[Float[Array, "d_in d_out"], Float[Array, ""]]:
        """See `AbstractRetention.__call__`."""
        q = self.power
        # Powers of numbers of at most 1, whatever their size; the norm does not depend
        # on the unit, and neither does its gradient.
        unit = jax.lax.stop_gradient(jnp.max(jnp.abs(accumulated), initial=1.0))
        total = jnp.sum(jnp.square(accumulated / unit) ** (q / 2))
        norm = unit * jnp.maximum(total, (SMALLEST_NORM / unit) ** q) ** (1 / q)
        return accumulated, jnp.maximum(norm ** (2 - q), SMALLEST_SCALE)
