"""The seam for update rules: how a memory is written and read.

A rule says which gates it wants, what it carries, and how it takes in tokens, twice:
`step` is the definition, one token at a time; `chunk` is the fast form, a whole chunk
in matrix products. Alignment with chunks, padding, truncation and rematerialisation are
done once for all rules in `scan.py`; `check_rule` compares the two forms.

A chunk is `chunk_len` tokens at fixed places of the sequence. What a rule does at the
end of one (such as moving its anchor) it says by `end_chunk` and `start_chunk`: the
first takes from a state what the next chunk needs, the second makes a state of that.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int, PyTree

from titans_eqx.axes import MemoryWeights
from titans_eqx.errors import check_size
from titans_eqx.memory.inputs import GateSpec, MemoryInputs
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.outer_gradient import OuterGradient


class AbstractRuleState(eqx.Module):
    """The memory of one sequence and head, float32 or wider; its size never changes."""

    weights: eqx.AbstractVar[MemoryWeights]  # M_t
    chunk_offset: eqx.AbstractVar[Int[Array, ""]]  # tokens read of the current chunk


State = TypeVar("State", bound=AbstractRuleState)


class AbstractRule(eqx.Module, Generic[State]):
    """How a memory is written and read.

    `initial` is M_0 in all methods, for rules that go back to it.
    """

    chunk_len: eqx.AbstractVar[int]
    outer_gradient: eqx.AbstractVar[OuterGradient]

    def __check_init__(self) -> None:
        """Check what all rules have.

        Raises:
            ValueError: If a chunk has no tokens.
        """
        check_size("chunk_len", self.chunk_len)

    @abstractmethod
    def gate_specs(self, net: AbstractMemoryNet) -> Mapping[str, GateSpec]:
        """The gates that the rule wants at every token of a memory.

        Raises:
            ValueError: If the rule cannot write such a network.
        """

    @abstractmethod
    def init_state(self, weights: MemoryWeights) -> State:
        """The state before the first token, with weights M_0."""

    @abstractmethod
    def end_chunk(self, state: State) -> PyTree[Array]:
        """What a finished chunk hands to the next one.

        Of the state that `start_chunk` makes of it, this must be the same again: a
        chunk without tokens changes nothing.
        """

    @abstractmethod
    def start_chunk(self, carry: PyTree[Array]) -> State:
        """The state at the start of a chunk, from what `end_chunk` returned."""

    @abstractmethod
    def surprise(
        self, net: AbstractMemoryNet, token: MemoryInputs, state: State
    ) -> MemoryWeights:
        """The gradient `u_t` that a token is about to write."""

    @abstractmethod
    def step(
        self,
        net: AbstractMemoryNet,
        token: MemoryInputs,
        state: State,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, " d"], State]:
        """Write and read one token: the definition of the rule.

        Returns:
            The read `y_t`, and the state with its `chunk_offset` as it was.
        """

    @abstractmethod
    def chunk(
        self,
        net: AbstractMemoryNet,
        inputs: MemoryInputs,
        is_real: Bool[Array, " chunk"],
        state: State,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, "chunk d"], State]:
        """Write and read the tokens of one chunk at once.

        Args:
            net: Structure of the memory.
            inputs: `chunk_len` tokens; gates at padding are neutral.
            is_real: False at padding, which must change nothing.
            state: State before the first real token.
            initial: M_0.

        Returns:
            Reads (meaningless at padding), and the state after the last real token,
            with its `chunk_offset` as it was.
        """


class AbstractPreparedRule(AbstractRule[State]):
    """A rule whose chunk is taken in in two parts.

    The first does not look at the memory, so that `scan.py` may work it out for all
    chunks of a sequence at once, and leave less to be done in the loop over them.
    """

    @abstractmethod
    def prepare(
        self,
        net: AbstractMemoryNet,
        inputs: MemoryInputs,
        is_real: Bool[Array, " chunk"],
    ) -> PyTree[Array]:
        """What of a chunk does not depend on the memory; arguments as of `chunk`."""

    @abstractmethod
    def chunk_prepared(
        self,
        net: AbstractMemoryNet,
        prepared: PyTree[Array],
        state: State,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, "chunk d"], State]:
        """What `chunk` returns, from what `prepare` returned."""

    def chunk(
        self,
        net: AbstractMemoryNet,
        inputs: MemoryInputs,
        is_real: Bool[Array, " chunk"],
        state: State,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, "chunk d"], State]:
        """See `AbstractRule.chunk`."""
        prepared = self.prepare(net, inputs, is_real)
        return self.chunk_prepared(net, prepared, state, initial)
