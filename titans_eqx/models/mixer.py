"""The seam for blocks: how information is mixed over time.

A mixer is a layer over a sequence with a state of fixed size. It can be run on a whole
sequence, on any split of it, or token by token, with the same result.
"""

from abc import abstractmethod
from typing import Generic, TypeVar

import equinox as eqx
from jaxtyping import Array, Float

from titans_eqx.memory import AbstractMemory, MemoryStats
from titans_eqx.nn.documents import Documents

State = TypeVar("State")


class AbstractMixer(eqx.Module, Generic[State]):
    """Mixes information over time; what every block is around."""

    @abstractmethod
    def init_state(self) -> State:
        """The state before the first token of a sequence."""

    @abstractmethod
    def __call__(
        self,
        x: Float[Array, "seq d_model"],
        state: State | None,
        documents: Documents | None = None,
    ) -> tuple[Float[Array, "seq d_model"], State]:
        """Mix a part of a sequence.

        Args:
            x: Normalised stream, at least one token.
            state: Where the stream stands; None for a fresh sequence.
            documents: Where other sequences start; the first goes on with the state.

        Returns:
            What the block adds to the stream, and the state after the last token.
        """

    @abstractmethod
    def step(
        self, x: Float[Array, " d_model"], state: State
    ) -> tuple[Float[Array, " d_model"], State]:
        """Mix one token; see `__call__`."""


class AbstractMemoryMixer(AbstractMixer[State]):
    """A mixer with a memory in it."""

    memory: eqx.AbstractVar[AbstractMemory]

    @abstractmethod
    def probe(self, x: Float[Array, " d_model"], state: State) -> MemoryStats:
        """What the memory does at a token, given the state before it."""

    def forget(self, state: State) -> State:
        """A state whose memory is as before the first token, and all else as it is.

        By default there is nothing else. To be called where a chunk, and a segment,
        starts.
        """
        return self.init_state()
