"""Inner losses beyond the squared error (MIRAS, arXiv 2504.13173).

Each is its gradient at the memory's output, so all of them cost nothing more.
"""

from collections.abc import Mapping
from typing import Final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from titans_eqx.memory.inputs import GateSpec
from titans_eqx.memory.loss import AbstractInnerLoss

SHARPNESS: Final = 10.0  # of tanh in place of a sign
SMOOTHING: Final = 1e-6  # added to squares under a root
# Errors beyond this count as this: their powers would overflow before clipping.
LARGEST_ERROR: Final = 1e4


class HuberLoss(AbstractInnerLoss):
    """Squared error up to a norm `delta_t`, `delta_t |M(k_t) - v_t|_1` beyond (Yaad).

    `delta_t` is a gate, `threshold`: learned, and a function of the token.

    Reading: as MIRAS writes it, the gradient jumps where the norm reaches `delta_t`.
    The sign is smooth, `tanh(10 e)`, as MIRAS has it for other powers, so that the
    outer gradient sees it.
    """

    start: float = eqx.field(static=True, default=1.0)
    largest: float = eqx.field(static=True, default=4.0)

    def gate_specs(self) -> Mapping[str, GateSpec]:
        """The threshold, in `(0, largest)`."""
        return {"threshold": GateSpec(size=1, start=self.start, high=self.largest)}

    def gradient(
        self,
        outputs: Float[Array, "*rows d"],
        values: Float[Array, "*rows d"],
        gates: Mapping[str, Float[Array, "*rows _"]],
    ) -> Float[Array, "*rows d"]:
        """See `AbstractInnerLoss.gradient`."""
        error, threshold = outputs - values, gates["threshold"]
        norm = jnp.sqrt(jnp.sum(jnp.square(error), axis=-1, keepdims=True) + SMOOTHING)
        return jnp.where(norm <= threshold, error, threshold * _smooth_sign(error))


class PowerLoss(AbstractInnerLoss):
    """`sum |M(k_t) - v_t|^p`, feature by feature (Moneta, with p = 3)."""

    power: float = eqx.field(static=True, default=3.0)

    def gate_specs(self) -> Mapping[str, GateSpec]:
        """None."""
        return {}

    def gradient(
        self,
        outputs: Float[Array, "*rows d"],
        values: Float[Array, "*rows d"],
        gates: Mapping[str, Float[Array, "*rows _"]],
    ) -> Float[Array, "*rows d"]:
        """See `AbstractInnerLoss.gradient`: `p sign(e) |e|^(p-1)`, both smooth."""
        error = jnp.clip(outputs - values, -LARGEST_ERROR, LARGEST_ERROR)
        size = jnp.sqrt(jnp.square(error) + SMOOTHING)
        return self.power * _smooth_sign(error) * size ** (self.power - 1)


class DotProductLoss(AbstractInnerLoss):
    """`-<M(k_t), v_t>`: nothing is corrected, everything is added (Hebb's rule)."""

    def gate_specs(self) -> Mapping[str, GateSpec]:
        """None."""
        return {}

    def gradient(
        self,
        outputs: Float[Array, "*rows d"],
        values: Float[Array, "*rows d"],
        gates: Mapping[str, Float[Array, "*rows _"]],
    ) -> Float[Array, "*rows d"]:
        """See `AbstractInnerLoss.gradient`: `-v_t`."""
        return -values


def _smooth_sign(error: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
    return jnp.tanh(SHARPNESS * error)
