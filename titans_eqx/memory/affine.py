"""Chunks as affine maps of the memory, taken in side by side by a parallel scan.

Under a rule whose surprise is linear in the memory, a chunk changes what is carried to
the next one by `X -> F X + O`, where `F` and `O` do not depend on the memory. Two such
maps make a third, so the memories between `n` chunks are `2 log2(n)` steps of matrix
products away from the first one, in place of `n` turns of a loop.
"""

from abc import abstractmethod
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, PyTree

from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.rule import AbstractPreparedRule, AbstractRuleState

State = TypeVar("State", bound=AbstractRuleState)


class AffineMap(eqx.Module):
    """What chunks do to the memory, `X -> (k x I + C) X + O`; any leading axis.

    What is kept of the memory is a factor for the whole of it, apart from what keys
    change: an accelerator rounds the factors of its products, and what is forgotten in
    many chunks would add that up.
    """

    kept: Float[Array, "*chunks parts parts"]  # k, of each matrix that is carried
    change: Float[Array, "*chunks rows rows"]  # C
    offset: Float[Array, "*chunks rows d"]  # O

    def __call__(self, rows: Float[Array, "*chunks rows d"]) -> Array:
        """The memories after the chunks, from those before them."""
        return _mixed(self.kept, rows) + self.change @ rows + self.offset

    def then(self, later: "AffineMap") -> "AffineMap":
        """The maps of two neighbouring chunks each, taken together."""
        change = _mixed(later.kept, self.change) + later.change @ self.change
        by_columns = jnp.matrix_transpose(later.change)
        columns = _mixed(jnp.matrix_transpose(self.kept), by_columns)
        return AffineMap(
            kept=_mixed(later.kept, self.kept),
            change=change + jnp.matrix_transpose(columns),
            offset=later(self.offset),
        )


class AbstractAffineRule(AbstractPreparedRule[State]):
    """A prepared rule under which a chunk is an affine map of the memory.

    What `end_chunk` returns are matrices of one shape; one below the other, in the
    order of its leaves, they are the rows that a map works on. A subclass that has one
    of the other forms anew needs a map of its own, or else its chunks stay in turn.
    """

    @abstractmethod
    def chunk_map(self, net: AbstractMemoryNet, prepared: PyTree[Array]) -> AffineMap:
        """What a chunk does to the rows, from its start to what `end_chunk` returns.

        Args:
            net: Structure of the memory.
            prepared: What `prepare` returned for the chunk; nothing else decides.
        """


def stacked(carry: PyTree[Float[Array, "d_in d"]]) -> Float[Array, "rows d"]:
    """The rows of what `end_chunk` returned."""
    return jnp.concatenate(jax.tree.leaves(carry))


def unstacked(
    rows: Float[Array, "rows d"], like: PyTree[Float[Array, "d_in d"]]
) -> PyTree[Float[Array, "d_in d"]]:
    """What `start_chunk` takes, from rows."""
    leaves, structure = jax.tree.flatten(like)
    return jax.tree.unflatten(structure, jnp.split(rows, len(leaves)))


def memories_between(
    start: Float[Array, "rows d"], maps: AffineMap
) -> Float[Array, "n_memories rows d"]:
    """The memory before each chunk, and that after the last one.

    Neighbours are taken together, which gives the memories at every second place, by
    the same means; each of the others is one map away from one of these.

    Args:
        start: The memory before the first chunk.
        maps: Of the chunks, leading axis.
    """
    n_chunks = maps.offset.shape[0]
    if n_chunks == 0:
        return start[None]
    n_pairs = n_chunks // 2
    first, second = (
        jax.tree.map(lambda x, side=side: x[side : 2 * n_pairs : 2], maps)
        for side in (0, 1)
    )
    even = memories_between(start, first.then(second))
    odd = jax.tree.map(lambda x: x[::2], maps)(even[: n_chunks - n_pairs])
    n_odd = odd.shape[0]
    in_turn = jnp.stack([even[:n_odd], odd], axis=1).reshape(-1, *start.shape)
    return jnp.concatenate([in_turn, even[n_odd:]])


def _mixed(
    factors: Float[Array, "*chunks parts parts"], rows: Float[Array, "*chunks rows d"]
) -> Float[Array, "*chunks rows d"]:
    """`(k x I) X`, one number at a time."""
    parts = factors.shape[-1]
    split = rearrange(rows, "... (part row) d -> part ... row d", part=parts)
    # Not a sum over an axis: of one map of 64 rows or more in float32, jaxlib 0.10.2
    # compiles that to a wrong program on CPUs.
    mixed = [
        sum(factors[..., i, j, None, None] * split[j] for j in range(parts))
        for i in range(parts)
    ]
    return jnp.concatenate(mixed, axis=-2)
