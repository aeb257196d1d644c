"""The stack of blocks between embedding and head; it knows no tokens.

    x = x + mix(norm(x));  x = x + feedforward(norm(x))        for each block

Blocks that repeat are stacked. Many of them are run by one `lax.scan`, so that compile
time does not grow with depth; a few one after the other, because a scan copies all that
the backward pass needs into arrays for all repeats, and out of them again. Blocks that
are run again in the backward pass, or gather their weights, are in a scan wherever they
repeat: out of a loop XLA runs them again early on a CPU, and what they save of memory
is lost.
"""

from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from titans_eqx.memory import MemoryStats
from titans_eqx.models.mixer import AbstractMemoryMixer, AbstractMixer
from titans_eqx.nn.documents import Documents
from titans_eqx.nn.feedforward import SwiGLU
from titans_eqx.nn.remat import recomputes_blocks, remat_block
from titans_eqx.nn.tree import select
from titans_eqx.sharding.parameters import gather, has_shards
from titans_eqx.sharding.varying import scan

Tree = TypeVar("Tree", bound=PyTree)

# Four blocks of MAC: a training step is a tenth faster on a CPU, and takes a third
# longer to compile.
MOST_UNROLLED: Final = 4

BackboneState: TypeAlias = tuple[PyTree[Array], ...]
"""The states of all blocks, an entry for each stack; its size never changes."""


class Block(eqx.Module):
    """A mixer and a feed-forward, both pre-norm residual."""

    mixer_norm: eqx.nn.RMSNorm
    mixer: AbstractMixer
    feedforward_norm: eqx.nn.RMSNorm
    feedforward: SwiGLU

    def __call__(
        self,
        x: Float[Array, "seq d_model"],
        state: PyTree[Array] | None,
        documents: Documents | None = None,
    ) -> tuple[Float[Array, "seq d_model"], PyTree[Array]]:
        """See `AbstractMixer.__call__`."""
        # Where there are none, a mixer that does not know of documents will do.
        more = () if documents is None else (documents,)
        mixed, state = self.mixer(jax.vmap(self.mixer_norm)(x), state, *more)
        x = x + mixed
        return x + self.feedforward(jax.vmap(self.feedforward_norm)(x)), state

    def step(
        self, x: Float[Array, " d_model"], state: PyTree[Array]
    ) -> tuple[Float[Array, " d_model"], PyTree[Array]]:
        """See `AbstractMixer.step`."""
        mixed, state = self.mixer.step(self.mixer_norm(x), state)
        x = x + mixed
        return x + self.feedforward(self.feedforward_norm(x)), state

    def probe(
        self, x: Float[Array, " d_model"], state: PyTree[Array]
    ) -> tuple[Float[Array, " d_model"], tuple[PyTree[Array], MemoryStats | None]]:
        """`step`, with what the memory does at the token; None without a memory."""
        stats = None
        if isinstance(self.mixer, AbstractMemoryMixer):
            stats = self.mixer.probe(self.mixer_norm(x), state)
        x, state = self.step(x, state)
        return x, (state, stats)


class LayerStack(eqx.Module):
    """A pattern of blocks, repeated; each block is stacked over repeats."""

    pattern: tuple[Block, ...]  # leading axis of every array: repeats

    @property
    def n_repeats(self) -> int:
        """How often the pattern is applied."""
        return jax.tree.leaves(eqx.filter(self.pattern, eqx.is_array))[0].shape[0]

    def init_state(self) -> PyTree[Array]:
        """The states of all blocks, stacked over repeats, before the first token."""
        return tuple(
            eqx.filter_vmap(lambda block: gather(block).mixer.init_state())(block)
            for block in self.pattern
        )

    def __call__(
        self,
        x: Float[Array, "seq d_model"],
        states: PyTree[Array] | None,
        documents: Documents | None = None,
    ) -> tuple[Float[Array, "seq d_model"], PyTree[Array]]:
        """Run all blocks; states None for a fresh sequence."""
        states = (None,) * len(self.pattern) if states is None else states
        return self._run_blocks(
            lambda block, x, state: block(x, state, documents), x, states
        )

    def step(
        self, x: Float[Array, " d_model"], states: PyTree[Array]
    ) -> tuple[Float[Array, " d_model"], PyTree[Array]]:
        """Run all blocks on one token."""
        return self._run_blocks(Block.step, x, states)

    def probe(
        self, x: Float[Array, " d_model"], states: PyTree[Array]
    ) -> tuple[Float[Array, " d_model"], PyTree[Array], list[MemoryStats | None]]:
        """`step`, with what the memory of each block does, first block first."""
        x, after = self._run_blocks(Block.probe, x, states)
        stats = [
            None if stats is None else jax.tree.map(lambda leaf, n=n: leaf[n], stats)
            for n in range(self.n_repeats)
            for _, stats in after
        ]
        return x, tuple(state for state, _ in after), stats

    def forget(self, states: PyTree[Array]) -> PyTree[Array]:
        """The states with fresh memories; see `AbstractMemoryMixer.forget`."""

        def one(block: Block, state: PyTree[Array]) -> PyTree[Array]:
            mixer = block.mixer
            return (
                mixer.forget(state) if isinstance(mixer, AbstractMemoryMixer) else state
            )

        pairs = zip(self.pattern, states, strict=True)
        return tuple(eqx.filter_vmap(one)(block, state) for block, state in pairs)

    def unstack(self) -> tuple["LayerStack", ...]:
        """The same blocks, a stack for each repeat of the pattern.

        Slicing a block out of a stack copies its weights; a loop over tokens should do
        that once, before it starts.
        """
        return tuple(LayerStack(pattern) for pattern in unstack_tree(self.pattern))

    def _run_blocks(
        self,
        run: Callable[[Block, Array, PyTree], tuple[Array, PyTree]],
        x: Float[Array, "*seq d_model"],
        states: PyTree,
    ) -> tuple[Float[Array, "*seq d_model"], tuple[PyTree, ...]]:
        """Run a method of the blocks in order; what it returns beside x is stacked.

        Features between blocks have the dtype of the feed-forwards, whatever comes in.
        """
        x = x.astype(jax.tree.leaves(self.pattern[0].feedforward)[0].dtype)
        arrays, static = eqx.partition(self.pattern, eqx.is_array)

        def body(x: Array, xs: PyTree) -> tuple[Array, PyTree]:
            arrays, states = xs
            after = []
            # Of this repeat only, where a device has parts of the weights.
            blocks = gather(eqx.combine(arrays, static))
            for block, state in zip(blocks, states, strict=True):
                x, kept = run(block, x, state)
                after.append(kept)
            return x, tuple(after)

        gathers = has_shards(arrays)
        body = remat_block(body, gathers=gathers, in_loop=self.n_repeats > 1)
        is_short = self.n_repeats * len(self.pattern) <= MOST_UNROLLED
        is_kept = not (gathers or recomputes_blocks())
        if self.n_repeats > 1 and not (is_short and is_kept):
            return scan(body, x, (arrays, states))
        repeats = []
        for n in range(self.n_repeats):
            xs = jax.tree.map(lambda leaf, n=n: leaf[n], (arrays, states))
            x, after = body(x, xs)
            repeats.append(after)
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *repeats)


class Backbone(eqx.Module):
    """Stacks of blocks and a last norm: "seq d_model" in, "seq d_model" out."""

    stacks: tuple[LayerStack, ...]
    norm: eqx.nn.RMSNorm

    def init_state(self) -> BackboneState:
        """The state before the first token: fresh memories, empty windows."""
        return tuple(stack.init_state() for stack in self.stacks)

    def __call__(
        self,
        x: Float[Array, "seq d_model"],
        state: BackboneState | None = None,
        *,
        document_starts: Int[Array, " n_starts"] | None = None,
    ) -> tuple[Float[Array, "seq d_model"], BackboneState]:
        """Run all blocks on a part of a sequence, or on several sequences in a row.

        Args:
            x: Features of the tokens, at least one.
            state: What an earlier call returned, to go on with its stream; None for a
                fresh sequence.
            document_starts: Positions at which a sequence of its own starts; those
                outside `x`, such as `len(x)`, start none. The tokens before the first
                of them go on with the state, and nothing else does.

        Returns:
            Normalised features, and the state after the last token.

        Raises:
            ValueError: If there is no token.
        """
        if x.shape[0] == 0:
            raise ValueError("a backbone needs at least one token, got none.")
        documents = (
            None if document_starts is None else Documents(document_starts, len(x))
        )
        states = (None,) * len(self.stacks) if state is None else state
        after = []
        for stack, stack_states in zip(self.stacks, states, strict=True):
            x, stack_states = stack(x, stack_states, documents)
            after.append(stack_states)
        return jax.vmap(self.norm)(x), tuple(after)

    def restart(self, state: BackboneState, is_start: Bool[Array, ""]) -> BackboneState:
        """The state before the first token if another sequence starts, else as it is.

        For `step` on a stream of several: `step(x, restart(state, is_start))`.
        """
        return select(is_start, self.init_state(), state)

    def forget(self, state: BackboneState) -> BackboneState:
        """The state with fresh memories and windows as they are.

        To be called where a chunk of the memories, and a segment, starts.
        """
        pairs = zip(self.stacks, state, strict=True)
        return tuple(stack.forget(states) for stack, states in pairs)

    def step(
        self, x: Float[Array, " d_model"], state: BackboneState
    ) -> tuple[Float[Array, " d_model"], BackboneState]:
        """Run all blocks on one token, at a cost that does not depend on its place."""
        after = []
        for stack, states in zip(self.stacks, state, strict=True):
            x, states = stack.step(x, states)
            after.append(states)
        return self.norm(x), tuple(after)

    def probe(
        self, x: Float[Array, " d_model"], state: BackboneState
    ) -> tuple[Float[Array, " d_model"], BackboneState, dict[int, MemoryStats]]:
        """`step`, with what the memories do; by layer, those that have one."""
        after, stats = [], []
        for stack, states in zip(self.stacks, state, strict=True):
            x, states, stack_stats = stack.probe(x, states)
            after.append(states)
            stats.extend(stack_stats)
        by_layer = {layer: one for layer, one in enumerate(stats) if one is not None}
        return self.norm(x), tuple(after), by_layer

    def unstack(self) -> "Backbone":
        """The same backbone with each repeat of a pattern in a stack of its own.

        For loops over tokens: a step then reads the weights where they lie. Its states
        are those of `unstack_state`.
        """
        stacks = tuple(part for stack in self.stacks for part in stack.unstack())
        return Backbone(stacks, self.norm)

    def unstack_state(self, state: BackboneState) -> BackboneState:
        """A state of this backbone as one of `unstack()`."""
        return tuple(part for stacked in state for part in unstack_tree(stacked))

    def stack_state(self, state: BackboneState) -> BackboneState:
        """The inverse of `unstack_state`."""
        parts = iter(state)
        return tuple(
            jax.tree.map(
                lambda *leaves: jnp.concatenate(leaves),
                *(next(parts) for _ in range(stack.n_repeats)),
            )
            for stack in self.stacks
        )


def unstack_tree(tree: Tree) -> tuple[Tree, ...]:
    """One tree for each repeat, with a leading axis of 1, as a stack of one has it."""
    arrays, rest = eqx.partition(tree, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    parts = zip(*(jnp.split(x, x.shape[0]) for x in leaves), strict=True)
    return tuple(
        eqx.combine(jax.tree.unflatten(structure, part), rest) for part in parts
    )
