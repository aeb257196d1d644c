"""Where the outer gradient stops: three independent `stop_gradient` switches.

Training differentiates through the writes of the memory. What it must not do by default
is train the memory's own weights, or build second derivatives of the memory network.
Keys, values and the gates receive their gradient under every setting.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from titans_eqx.axes import MemoryWeights

Tree = TypeVar("Tree", bound=PyTree[Array])


@dataclass(frozen=True, kw_only=True)
class GradientBoundary:
    """Which paths of the outer gradient are cut."""

    initial_memory: Literal["frozen", "learned"] = "frozen"  # is M_0 trained?
    surprise: Literal["first_order", "full"] = "first_order"  # does u_t see the anchor?
    truncate_every: int = 0  # chunks between cuts of the carried state; 0 = never

    def initial(self, weights: MemoryWeights) -> MemoryWeights:
        """M_0 as a sequence starts from it.

        Args:
            weights: The stored M_0.

        Returns:
            The same values, without gradient when M_0 is frozen.
        """
        is_frozen = self.initial_memory == "frozen"
        return jax.lax.stop_gradient(weights) if is_frozen else weights

    def anchor(self, weights: MemoryWeights) -> MemoryWeights:
        """The anchor as the surprise `u_t` sees it.

        Args:
            weights: Weights at the end of the last whole chunk.

        Returns:
            The same values, without gradient when only first order is wanted.
        """
        is_cut = self.surprise == "first_order"
        return jax.lax.stop_gradient(weights) if is_cut else weights

    def carry(
        self, state: Tree, chunks_read: Int[Array, ""], is_chunk_end: Bool[Array, ""]
    ) -> Tree:
        """The state handed to the next token or chunk.

        Args:
            state: Any tree of arrays.
            chunks_read: Chunks finished since the call began.
            is_chunk_end: Whether the last of them has just been finished.

        Returns:
            The same values, cut from their history after every `truncate_every` chunks.
        """
        if self.truncate_every == 0:
            return state
        is_cut = is_chunk_end & (chunks_read % self.truncate_every == 0)
        return select(is_cut, jax.lax.stop_gradient(state), state)


def select(condition: Bool[Array, ""], if_true: Tree, if_false: Tree) -> Tree:
    """One of two trees of the same structure.

    Args:
        condition: Which one.
        if_true: The tree if the condition holds.
        if_false: The tree otherwise.

    Returns:
        A tree of the same structure; gradients reach only the chosen one.
    """
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)
