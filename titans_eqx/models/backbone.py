"""Layers run by one `lax.scan`, so that compile time does not grow with depth."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from titans_eqx.config import ModelConfig
from titans_eqx.models.mixer import Block
from titans_eqx.models.build import LayerKind, build_block
from titans_eqx.sharding.varying import scan

Tree = TypeVar("Tree", bound=PyTree)

Visit: TypeAlias = Callable[[Block, Array, PyTree], tuple[Array, PyTree]]
"""What is done at each layer: (block, stream, state) to (stream, what is kept)."""


class LayerStack(eqx.Module):
    """A short pattern of blocks, repeated; each block is stacked over repeats."""

    pattern: tuple[Block, ...]  # leading axis of every array: repeats

    def __init__(
        self,
        kinds: Sequence[LayerKind],
        n_repeats: int,
        config: ModelConfig,
        *,
        key: PRNGKeyArray,
    ) -> None:
        """Build `n_repeats` copies of the pattern, each with weights of its own.

        Args:
            kinds: The blocks of the pattern, in order.
            n_repeats: How often the pattern is applied.
            config: Sizes and options of the model.
            key: Random key.
        """
        keys = jr.split(key, (len(kinds), n_repeats))
        self.pattern = tuple(
            eqx.filter_vmap(partial(_build_block, kind, config))(ks)
            for kind, ks in zip(kinds, keys, strict=True)
        )

    @property
    def n_repeats(self) -> int:
        """How often the pattern is applied."""
        return jax.tree.leaves(eqx.filter(self.pattern, eqx.is_array))[0].shape[0]

    def init_state(self) -> PyTree[Array]:
        """The states of all layers, stacked over repeats, before the first token."""
        return tuple(
            eqx.filter_vmap(lambda block: block.init_state())(block)
            for block in self.pattern
        )

    def __call__(
        self, x: Float[Array, "seq d_model"], states: PyTree[Array] | None
    ) -> tuple[Float[Array, "seq d_model"], PyTree[Array]]:
        """Run all layers on a piece of a sequence.

        Args:
            x: The residual stream.
            states: What `init_state` or an earlier call returned; None for a fresh
                sequence.

        Returns:
            The stream after the last layer, and the states after the last token.
        """
        return self.walk(lambda block, x, state: block(x, state), x, states)

    def step(
        self, x: Float[Array, " d_model"], states: PyTree[Array]
    ) -> tuple[Float[Array, " d_model"], PyTree[Array]]:
        """Run all layers on one token.

        Args:
            x: The residual stream at the token.
            states: The states before it.

        Returns:
            The stream after the last layer, and the next states.
        """
        return self.walk(lambda block, x, state: block.step(x, state), x, states)

    def walk(
        self, visit: Visit, x: Float[Array, "*seq d_model"], states: PyTree | None
    ) -> tuple[Float[Array, "*seq d_model"], tuple[PyTree, ...]]:
        """Visit the layers in order, each with the stream that the last one left.

        Args:
            visit: Given a block, the stream and the block's state, returns the stream
                after the block and anything else that is to be kept.
            x: The residual stream.
            states: The states of all layers; None gives each block None.

        Returns:
            The stream after the last layer, and what was kept: an entry for each block
            of the pattern, stacked over repeats.
        """
        arrays, static = eqx.partition(self.pattern, eqx.is_array)
        no_states = (None,) * len(self.pattern)

        def body(x: Array, xs: PyTree) -> tuple[Array, PyTree]:
            arrays, states = xs
            after = []
            for block, state in zip(eqx.combine(arrays, static), states, strict=True):
                x, kept = visit(block, x, state)
                after.append(kept)
            return x, tuple(after)

        xs = (arrays, states or no_states)
        if self.n_repeats == 1:
            x, kept = body(x, jax.tree.map(lambda leaf: leaf[0], xs))
            return x, jax.tree.map(lambda leaf: leaf[None], kept)
        return scan(body, x, xs)

    def apart(self) -> tuple["LayerStack", ...]:
        """The same layers, each a stack of its own.

        Slicing a layer out of a stack copies its weights; a loop over tokens should do
        that once, before it starts.
        """
        return tuple(
            eqx.tree_at(lambda stack: stack.pattern, self, pattern)
            for pattern in split_repeats(self.pattern)
        )


def split_repeats(tree: Tree) -> tuple[Tree, ...]:
    """Take a pattern, or its states, apart.

    Args:
        tree: Arrays stacked over repeats.

    Returns:
        One tree for each repeat, with a leading axis of 1.
    """
    arrays, rest = eqx.partition(tree, eqx.is_array)
    n_repeats = jax.tree.leaves(arrays)[0].shape[0]
    # `split` keeps the leading axis, as a stack of one layer has it.
    leaves, structure = jax.tree.flatten(arrays)
    parts = zip(*(jnp.split(x, n_repeats) for x in leaves), strict=True)
    return tuple(
        eqx.combine(jax.tree.unflatten(structure, part), rest) for part in parts
    )


def join_repeats(trees: Sequence[Tree]) -> Tree:
    """The inverse of `split_repeats`, for states.

    Args:
        trees: States of one repeat each.

    Returns:
        The states stacked over repeats.
    """
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *trees)


def group_layers(
    kinds: Sequence[LayerKind],
) -> list[tuple[tuple[LayerKind, ...], int]]:
    """Split a list of layers into patterns that repeat.

    Args:
        kinds: What each layer is, first to last.

    Returns:
        Pairs of a pattern and its number of repeats: the shortest pattern that repeats
        over the whole depth if there is one, else the runs of equal layers.
    """
    n_layers = len(kinds)
    for length in range(1, n_layers // 2 + 1):
        pattern = tuple(kinds[:length])
        if n_layers % length == 0 and pattern * (n_layers // length) == tuple(kinds):
            return [(pattern, n_layers // length)]
    runs: list[tuple[tuple[LayerKind, ...], int]] = []
    for kind in kinds:
        if runs and runs[-1][0] == (kind,):
            runs[-1] = ((kind,), runs[-1][1] + 1)
        else:
            runs.append(((kind,), 1))
    return runs


def _build_block(kind: LayerKind, config: ModelConfig, key: PRNGKeyArray) -> Block:
    return build_block(kind, config, key=key)
