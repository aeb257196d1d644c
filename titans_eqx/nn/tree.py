"""Operations on whole trees of arrays."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

Tree = TypeVar("Tree", bound=PyTree[Array])


def select(condition: Bool[Array, ""], if_true: Tree, if_false: Tree) -> Tree:
    """`jnp.where` leaf by leaf; gradients reach only the chosen tree."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)
