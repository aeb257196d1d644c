"""How the next token is drawn from the logits."""

import math
from typing import Final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from titans_eqx.errors import UserError
from titans_eqx.nn.precision import at_least_float32
from titans_eqx.sharding.varying import vary_like

NO_TOKEN: Final = -1
MAX_TOP_K: Final = 2**31 - 1


class SamplingError(UserError):
    """A sampling option is out of its range; the message is one line."""


class Sampling(eqx.Module):
    """Temperature and the filters that cut the tail of the distribution.

    The filters are applied in the order of the fields; each keeps at least the
    likeliest token, and each is off by default.
    """

    # Numbers of the user, or arrays (`traced`).
    temperature: float | Float[Array, ""] = eqx.field(kw_only=True, default=1.0)
    """Divides the logits; 0 = always the likeliest token."""
    top_k: int | Int[Array, ""] = eqx.field(kw_only=True, default=0)
    """Keep the k likeliest tokens; 0 = all."""
    top_p: float | Float[Array, ""] = eqx.field(kw_only=True, default=1.0)
    """Keep the likeliest tokens that together reach this probability."""
    min_p: float | Float[Array, ""] = eqx.field(kw_only=True, default=0.0)
    """Keep tokens at least this likely, relative to the likeliest."""
    stop_tokens: tuple[int, ...] | Int[Array, " n_stops"] = eqx.field(
        kw_only=True, default=()
    )
    """Generation ends after any of these."""

    def __check_init__(self) -> None:
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

    def traced(self, n_stops: int = 0) -> "Sampling":
        """The same in arrays, so that compiled functions do not depend on the values.

        Args:
            n_stops: Room for stop tokens beyond those there are; their number is part
                of what is compiled.
        """
        stops = np.asarray(self.stop_tokens, np.int32)
        real = jax.dtypes.canonicalize_dtype(float)
        with np.errstate(over="ignore"):  # as infinity, all tokens are alike
            temperature = np.asarray(self.temperature, real)
        # NumPy's arrays, which need no programs to be made.
        return eqx.tree_at(
            lambda s: (s.temperature, s.top_k, s.top_p, s.min_p, s.stop_tokens),
            self,
            (
                temperature,
                np.asarray(min(self.top_k, MAX_TOP_K), np.int32),
                np.asarray(self.top_p, real),
                np.asarray(self.min_p, real),
                np.pad(
                    stops,
                    (0, max(n_stops - stops.size, 0)),
                    constant_values=NO_TOKEN,
                ),
            ),
        )

    def __call__(
        self, logits: Float[Array, " vocab"], *, key: PRNGKeyArray
    ) -> Int[Array, ""]:
        """Draw one token; the key is unused at temperature 0."""
        # In half precision the random numbers tie, and the first of them would win.
        logits = at_least_float32(logits)

        def draw() -> Int[Array, ""]:
            # Relative to the largest, so that a tiny temperature gives -inf, never NaN.
            largest = jnp.max(logits)
            scaled = (logits - largest) / jnp.asarray(self.temperature, logits.dtype)
            kept = self._filter(jnp.where(logits == largest, 0, scaled))
            return jr.categorical(key, kept).astype(jnp.int32)

        return jax.lax.cond(
            self.temperature == 0,
            lambda: jnp.argmax(logits).astype(jnp.int32),
            draw,
        )

    def _filter(self, logits: Float[Array, " vocab"]) -> Float[Array, " vocab"]:
        """Every filter keeps what is at least as large as some logit."""
        min_p = jnp.asarray(self.min_p, logits.dtype)
        smallest = jax.lax.cond(
            (self.top_k > 0) | (self.top_p < 1),
            lambda: self._smallest_of_the_top(logits),
            lambda: vary_like(jnp.full((), -jnp.inf, logits.dtype), logits),
        )
        smallest = jnp.maximum(smallest, jnp.max(logits) + jnp.log(min_p))
        return jnp.where(logits >= smallest, logits, -jnp.inf)

    def _smallest_of_the_top(self, logits: Float[Array, " vocab"]) -> Float[Array, ""]:
        """The smallest logit that top_k, and then top_p, keep."""
        descending = jnp.sort(logits)[::-1]
        k = jnp.where(jnp.asarray(self.top_k) > 0, self.top_k, logits.size)
        kth = descending[jnp.minimum(k, logits.size) - 1]
        descending = jnp.where(descending >= kth, descending, -jnp.inf)
        probabilities = jax.nn.softmax(descending)
        before = jnp.cumsum(probabilities) - probabilities
        top_p = jnp.asarray(self.top_p, logits.dtype)
        # Rounding must not make 1 a filter.
        is_kept = (descending >= kth) & ((before < top_p) | (top_p == 1))
        # A tiny top_p is rounded to 0, and then nothing is below it.
        return jnp.min(jnp.where(is_kept, descending, descending[0]))

    def is_stop(self, token: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether generation ends after this token."""
        stops = jnp.asarray(self.stop_tokens, jnp.int32)
        return jnp.any(token == stops)
