"""What a rule is given at each token: queries, keys, values and gates.

Symbols as in "Titans: Learning to Memorize at Test Time", section 3.1: `M` fast
weights, `S` velocity ("past surprise"), `alpha` decay, `eta` momentum, `theta` learning
rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@dataclass(frozen=True, kw_only=True)
class GateSpec:
    """A gate that a rule or a loss wants at each token: `high * sigmoid(linear(x))`."""

    size: int  # values for each head
    start: float  # value before training, in (0, high)
    high: float = 1.0  # upper end of the range; the lower one is 0
    neutral: float = 0.0  # value at padding, which must change nothing

    def __post_init__(self) -> None:
        """Check the start.

        Raises:
            ValueError: If it is outside the range.
        """
        if not 0 < self.start < self.high:
            raise ValueError(
                f"a gate must start inside its range (0, {self.high:g}), got "
                f"{self.start:g}."
            )


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
