"""Which steps are so far out of line that their update is better left out."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class SpikeStatistics(eqx.Module):
    """Running mean and variance of the loss and of the gradient's norm.

    Of all steps so far while they are fewer than the window, then exponential with its
    length. The arrays do not depend on the window, so it may change within a run.
    """

    mean: Float[Array, "2"]
    variance: Float[Array, "2"]
    n_seen: Int[Array, ""]

    @classmethod
    def init(cls) -> "SpikeStatistics":
        """Those of no step."""
        return cls(jnp.zeros(2), jnp.zeros(2), jnp.zeros((), jnp.int32))

    def bound(self, sigmas: float, window: int) -> Float[Array, "2"]:
        """The largest values that are no spike: any, until a window of steps is seen.

        Args:
            sigmas: Standard deviations above the mean.
            window: Number of steps.
        """
        bound = self.mean + sigmas * jnp.sqrt(self.variance)
        return jnp.where(self.n_seen >= window, bound, jnp.inf)

    def add(
        self,
        values: Float[Array, "2"],
        is_finite: Bool[Array, ""],
        sigmas: float,
        window: int,
    ) -> "SpikeStatistics":
        """Take in a step, unless it is not finite.

        A spike counts as the bound that it exceeds: one alone hardly moves the mean,
        but a level that stays higher is accepted after some steps.
        """
        values = jnp.minimum(values, self.bound(sigmas, window))
        # West (1979): weight 1/n while all steps count the same, 1/window after that.
        n_averaged = jnp.minimum(self.n_seen + 1, window)
        weight = is_finite.astype(values.dtype) / n_averaged.astype(values.dtype)
        change = jnp.where(is_finite, values - self.mean, 0)
        return SpikeStatistics(
            mean=self.mean + weight * change,
            variance=(1 - weight) * (self.variance + weight * change**2),
            n_seen=self.n_seen + is_finite.astype(jnp.int32),
        )
