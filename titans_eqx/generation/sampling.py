"""How the next token is drawn from the logits."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from titans_eqx.errors import UserError


class SamplingError(UserError):
    """A sampling option is out of its range; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Temperature and the filters that cut the tail of the distribution.

    The filters are applied in the order of the fields; each keeps at least the
    likeliest token, and each is off by default.
    """

    temperature: float = 1.0  # divides the logits; 0 = always the likeliest token
    top_k: int = 0  # keep the k likeliest tokens; 0 = all
    top_p: float = 1.0  # keep the likeliest tokens that together reach this probability
    min_p: float = 0.0  # keep tokens at least this likely, relative to the likeliest
    stop_tokens: tuple[int, ...] = ()  # generation ends after any of these

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            SamplingError: If a field is out of its range.
        """
        if not 0 <= self.temperature < math.inf:
            raise SamplingError(
                f"temperature must be finite and at least 0, got {self.temperature}. "
                "Use 0 for the likeliest token, 1 for the model's own distribution."
            )
        if self.top_k < 0:
            raise SamplingError(
                f"top_k must be at least 0 (0 = all), got {self.top_k}."
            )
        if not 0 < self.top_p <= 1:
            raise SamplingError(f"top_p must be in (0, 1], got {self.top_p}.")
        if not 0 <= self.min_p <= 1:
            raise SamplingError(f"min_p must be in [0, 1], got {self.min_p}.")

    def __call__(
        self, logits: Float[Array, " vocab"], *, key: PRNGKeyArray
    ) -> Int[Array, ""]:
        """Draw one token; the key is unused at temperature 0."""
        if self.temperature == 0:
            return jnp.argmax(logits).astype(jnp.int32)
        # Relative to the largest, so that a tiny temperature gives -inf, never NaN.
        scaled = (logits - jnp.max(logits)) / self.temperature
        kept = self._filter(jnp.where(logits == jnp.max(logits), 0.0, scaled))
        return jr.categorical(key, kept).astype(jnp.int32)

    def _filter(self, logits: Float[Array, " vocab"]) -> Float[Array, " vocab"]:
        if 0 < self.top_k < logits.size:
            smallest = jax.lax.top_k(logits, self.top_k)[0][-1]
            logits = jnp.where(logits >= smallest, logits, -jnp.inf)
        if self.top_p < 1:
            descending = jnp.sort(logits)[::-1]
            probabilities = jax.nn.softmax(descending)
            before = jnp.cumsum(probabilities) - probabilities
            smallest = jnp.min(jnp.where(before < self.top_p, descending, jnp.inf))
            logits = jnp.where(logits >= smallest, logits, -jnp.inf)
        if self.min_p > 0:
            smallest = jnp.max(logits) + jnp.log(self.min_p)
            logits = jnp.where(logits >= smallest, logits, -jnp.inf)
        return logits

    def is_stop(self, token: Int[Array, ""]) -> Array:
        """Whether generation ends after this token."""
        stops = jnp.asarray(self.stop_tokens, jnp.int32)
        return jnp.any(token == stops)
