"""Operations on whole trees of arrays."""

import math
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

Tree = TypeVar("Tree", bound=PyTree[Array])
AnyArray: TypeAlias = Array | jax.ShapeDtypeStruct
"""An array, or the shape of one that was not made."""


def select(condition: Bool[Array, ""], if_true: Tree, if_false: Tree) -> Tree:
    """`jnp.where` leaf by leaf; gradients reach only the chosen tree."""

    def choose(a: Array, b: Array) -> Array:
        # What both trees share is not chosen, and so not copied at every token.
        return a if a is b else jnp.where(condition, a, b)

    return jax.tree.map(choose, if_true, if_false)


def n_elements(tree: PyTree[AnyArray]) -> int:
    """Numbers in all arrays."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def n_bytes(tree: PyTree[AnyArray]) -> int:
    """Bytes of all arrays."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
