"""A memory that is switched off: it reads, and never writes or forgets."""

from collections.abc import Mapping

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float, PyTree

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.inputs import GateSpec, MemoryInputs
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.outer_gradient import OuterGradient
from titans_eqx.memory.rule import AbstractRule, AbstractRuleState


class ReadOnlyRule(AbstractRule[AbstractRuleState]):
    """Reads M_0 for ever, with the gates, parameters and state of another rule.

    The control for what the writes of a memory bring: everything else is the same.
    """

    rule: AbstractRule

    chunk_len: int = eqx.field(static=True)
    outer_gradient: OuterGradient = eqx.field(static=True)

    def __init__(self, rule: AbstractRule) -> None:
        """Switch a rule off."""
        self.rule = rule
        self.chunk_len = rule.chunk_len
        self.outer_gradient = rule.outer_gradient

    def gate_specs(self, net: AbstractMemoryNet) -> Mapping[str, GateSpec]:
        """Those of the rule; their values are not looked at."""
        return self.rule.gate_specs(net)

    def init_state(self, weights: MemoryWeights) -> AbstractRuleState:
        """See `AbstractRule.init_state`."""
        return self.rule.init_state(weights)

    def end_chunk(self, state: AbstractRuleState) -> PyTree[Array]:
        """See `AbstractRule.end_chunk`."""
        return self.rule.end_chunk(state)

    def start_chunk(self, carry: PyTree[Array]) -> AbstractRuleState:
        """See `AbstractRule.start_chunk`."""
        return self.rule.start_chunk(carry)

    def surprise(
        self, net: AbstractMemoryNet, token: MemoryInputs, state: AbstractRuleState
    ) -> MemoryWeights:
        """Zero: nothing is about to be written."""
        return jax.tree.map(lambda w: 0 * w, state.weights)

    def step(
        self,
        net: AbstractMemoryNet,
        token: MemoryInputs,
        state: AbstractRuleState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, " d"], AbstractRuleState]:
        """See `AbstractRule.step`."""
        return net(state.weights, token.queries), state

    def chunk(
        self,
        net: AbstractMemoryNet,
        inputs: MemoryInputs,
        is_real: Bool[Array, " chunk"],
        state: AbstractRuleState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, "chunk d"], AbstractRuleState]:
        """See `AbstractRule.chunk`."""
        return net(state.weights, inputs.queries), state
