"""What a rule is given at each token: queries, keys, values and gates.

Symbols as in "Titans: Learning to Memorize at Test Time", section 3.1: `M` fast
weights, `S` velocity ("past surprise"), `alpha` decay, `eta` momentum, `theta` learning
rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

Start: TypeAlias = float | tuple[float, float]
"""A gate's value before training: of all heads, or of the first and of the last head,
with those between them evenly spaced in the logarithm."""


@dataclass(frozen=True, kw_only=True)
class GateSpec:
    """A gate that a rule or a loss wants at each token: `high * sigmoid(linear(x))`."""

    size: int  # values for each head
    start: Start  # in (0, high)
    high: float = 1.0  # upper end of the range; the lower one is 0
    neutral: float = 0.0  # value at padding, which must change nothing

    def __post_init__(self) -> None:
        """Check the start.

        Raises:
            ValueError: If it is outside the range.
        """
        for start in np.atleast_1d(self.start):
            if not 0 < start < self.high:
                raise ValueError(
                    f"a gate must start inside its range (0, {self.high:g}), got "
                    f"{start:g}."
                )

    def starts(self, n_heads: int) -> Float[np.ndarray, " heads"]:
        """The value of each head before training."""
        first, last = np.broadcast_to(self.start, 2)
        return np.geomspace(first, last, n_heads)


class MemoryInputs(eqx.Module):
    """The tokens of one head; of a single token the arrays have no leading axis."""

    queries: Float[Array, "seq d"]  # q_t, unit L2 norm
    keys: Float[Array, "seq d"]  # k_t, unit L2 norm
    values: Float[Array, "seq d"]  # v_t, what M(k_t) should become
    gates: dict[str, Float[Array, "seq _"]]  # by the names of the rule's `gate_specs`

    def mask(
        self, specs: Mapping[str, GateSpec], is_real: Bool[Array, " seq"]
    ) -> "MemoryInputs":
        """The same with neutral gates at padding."""
        gates = {
            name: jnp.where(is_real[:, None], self.gates[name], spec.neutral)
            for name, spec in specs.items()
        }
        return MemoryInputs(self.queries, self.keys, self.values, gates)
