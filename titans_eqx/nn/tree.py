"""Operations on whole trees of arrays."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

Tree = TypeVar("Tree", bound=PyTree[Array])


def select(condition: Bool[Array, ""], if_true: Tree, if_false: Tree) -> Tree:
    """`jnp.where` leaf by leaf; gradients reach only the chosen tree."""

    def choose(a: Array, b: Array) -> Array:
        # What both trees share is not chosen, and so not copied at every token.
        return a if a is b else jnp.where(condition, a, b)

    return jax.tree.map(choose, if_true, if_false)
