"""Where the outer gradient stops: three independent `stop_gradient` filters.

Training differentiates through the writes of the memory. What it must not do by default
is train the memory's own weights, or build second derivatives of the memory network.
Keys, values and the gates receive their gradient under every setting.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar

import jax
from jaxtyping import Array, Bool, Int, PyTree

from titans_eqx.axes import MemoryWeights
from titans_eqx.errors import check_option
from titans_eqx.nn.tree import select

Tree = TypeVar("Tree", bound=PyTree[Array])


@dataclass(frozen=True, kw_only=True)
class OuterGradient:
    """Which paths of the outer gradient are cut."""

    initial_memory: Literal["frozen", "learned"] = "frozen"  # is M_0 trained?
    surprise: Literal["first_order", "full"] = "first_order"  # does u_t see the anchor?
    truncate_every: int = 0  # chunks between cuts of the carried state; 0 = never

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: If one is not among those allowed.
        """
        check_option("initial_memory", self.initial_memory, "frozen", "learned")
        check_option("surprise", self.surprise, "first_order", "full")
        if self.truncate_every < 0:
            raise ValueError(
                "truncate_every must be 0 (never) or more, got "
                f"truncate_every={self.truncate_every}."
            )

    def initial(self, weights: Tree) -> Tree:
        """M_0 as a sequence starts from it: without gradient when it is frozen."""
        is_frozen = self.initial_memory == "frozen"
        return jax.lax.stop_gradient(weights) if is_frozen else weights

    def anchor(self, weights: MemoryWeights) -> MemoryWeights:
        """The anchor as `u_t` sees it: without gradient in first order."""
        is_cut = self.surprise == "first_order"
        return jax.lax.stop_gradient(weights) if is_cut else weights

    def truncate(
        self, state: Tree, n_chunks: Int[Array, ""], is_chunk_end: Bool[Array, ""]
    ) -> Tree:
        """Cut a state from its history after every `truncate_every` chunks.

        Args:
            state: What is carried to the next token or chunk.
            n_chunks: Chunks finished since the call began.
            is_chunk_end: Whether the last of them has just been finished.
        """
        if self.truncate_every == 0:
            return state
        is_cut = is_chunk_end & (n_chunks % self.truncate_every == 0)
        return select(is_cut, jax.lax.stop_gradient(state), state)
