"""The seam for memories: what the blocks of a model need of one."""

from abc import abstractmethod
from typing import Generic, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from titans_eqx.nn.documents import Documents
from titans_eqx.nn.padding import Padding
from titans_eqx.nn.tree import select
from titans_eqx.sharding.varying import scan, vary_like

State = TypeVar("State")


class MemoryStats(eqx.Module):
    """What a layer of memories does at one token.

    A memory is a head, or where a layer has several kinds a head of one of them.
    """

    surprise: Float[Array, " memories"]  # |u_t|, all memory layers, before clipping
    gates: dict[str, Float[Array, "heads _"]]
    weight_norm: Float[
        Array, " memories"
    ]  # |M_t| over all memory layers, after the write


class AbstractMemory(eqx.Module, Generic[State]):
    """A layer over a sequence whose memory is learned while it reads."""

    # Tokens taken in at once: segments of MAC, and paddings, are whole numbers of them.
    chunk_len: eqx.AbstractVar[int]

    @abstractmethod
    def init_state(
        self, prefix: Float[Array, "n_persistent d_model"] | None = None
    ) -> State:
        """The state before the first token.

        Args:
            prefix: Learned tokens that every sequence starts with; they are read here,
                as a chunk of their own, so that the sequence starts at a chunk's start.
        """

    @abstractmethod
    def __call__(
        self,
        x: Float[Array, "seq d_model"],
        state: State | None = None,
        padding: Padding | None = None,
    ) -> tuple[Float[Array, "seq d_model"], State]:
        """Write and read a part of a sequence.

        Args:
            x: Tokens, at least one.
            state: Where the stream stands, anywhere in a chunk; None for a fresh
                sequence.
            padding: Says that the first position is the first of a chunk, and which
                positions are real; None if that is not known.

        Returns:
            What the memory answers at each token (meaningless at padding), and the
            state after the last one.
        """

    def read_documents(
        self,
        x: Float[Array, "seq d_model"],
        documents: Documents,
        fresh: State,
        state: State | None = None,
    ) -> tuple[Float[Array, "seq d_model"], State]:
        """Write and read a row of documents, each as a sequence of its own.

        Token by token, which serves any memory; ours have faster forms.

        Args:
            x: Tokens, at least one.
            documents: Where documents start.
            fresh: The state before the first token of each, from `init_state`.
            state: Where the stream of document 0 stands; None for a fresh sequence.

        Returns:
            What the memory answers at each token, and the state after the last one.
        """
        numbers = documents.numbers
        is_start = jnp.diff(numbers, prepend=jnp.zeros(1, numbers.dtype)) > 0

        def body(
            state: State, xs: tuple[Float[Array, " d_model"], Bool[Array, ""]]
        ) -> tuple[State, Float[Array, " d_model"]]:
            token, is_start = xs
            y, state = self.step(token, select(is_start, fresh, state))
            return state, y

        fresh = vary_like(fresh, x)
        start = fresh if state is None else state
        state, answers = scan(body, start, (x, is_start))
        return answers, state

    @abstractmethod
    def step(
        self, x: Float[Array, " d_model"], state: State
    ) -> tuple[Float[Array, " d_model"], State]:
        """Write and read one token, at the same cost wherever it stands."""

    @abstractmethod
    def snapshot(self, state: State) -> PyTree[Array]:
        """What `retrieve` reads: the memory as it is, whatever is written later."""

    @abstractmethod
    def init_query_state(self) -> PyTree[Array]:
        """What `retrieve` carries along a sequence, before the first token."""

    @abstractmethod
    def retrieve(
        self,
        x: Float[Array, "positions d_model"],
        snapshot: PyTree[Array],
        query_state: PyTree[Array],
        padding: Padding,
    ) -> tuple[Float[Array, "positions d_model"], PyTree[Array]]:
        """Read a snapshot without writing (Titans, Eqs. 15 and 21).

        Returns:
            Answers (meaningless at padding), and the query state after the last token.
        """

    @abstractmethod
    def probe(self, x: Float[Array, " d_model"], state: State) -> MemoryStats:
        """What the memory does at a token, given the state before it."""
