"""TNT's memory: one that sees the whole past, and local ones that see it finely.

    y_t = V(q_t) + sum_i W_i(Pi_t q_t)                       (arXiv 2511.07343)

The global memory `V` takes in large chunks and is carried through the sequence. The
local memories `W_i` take in small chunks and start anew with every shard, so that a
sequence needs no more steps one after another than a shard has chunks. Each memory has
projections, gates, network and rule of its own; their reads are added.
"""

import math
from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.axes import HeadWeights
from titans_eqx.config import MemoryConfig
from titans_eqx.config.memory import block_len
from titans_eqx.config.memory_check import check_memory
from titans_eqx.memory.build import build_rule
from titans_eqx.memory.head_axis import HEAD_AXIS
from titans_eqx.memory.heads import MemoryHeads, NeuralMemoryState
from titans_eqx.memory.local import LocalRule, LocalState, scan_shards
from titans_eqx.memory.memory import AbstractMemory, MemoryStats
from titans_eqx.memory.read_out import ReadOut
from titans_eqx.nn.documents import Documents
from titans_eqx.nn.padding import Padding

HierarchicalState = tuple[NeuralMemoryState, ...]
"""The states of the memories, the global one first."""

QueryStates = tuple[Float[Array, "_ d_model"], ...]


class Snapshot(eqx.Module):
    """What reading one of the memories takes."""

    weights: HeadWeights
    projector: Float[Array, "heads d d"] | None


class HierarchicalMemory(AbstractMemory[HierarchicalState]):
    """A global memory and local ones, side by side."""

    global_heads: MemoryHeads
    local_heads: tuple[MemoryHeads, ...]
    read_out: ReadOut

    def __init__(
        self,
        global_heads: MemoryHeads,
        local_heads: tuple[MemoryHeads, ...],
        *,
        read_norm: bool = True,
        gate_start: Literal["random", "open"] = "random",
        key: PRNGKeyArray,
    ) -> None:
        """Put memories together.

        Args:
            global_heads: With any rule; in TNT `LargeChunkRule`.
            local_heads: Each with a `LocalRule` around any rule.
            read_norm: See `norm` of `ReadOut`.
            gate_start: See `ReadOut`.
            key: Random key, for what follows the reads.

        Raises:
            ValueError: If a local memory never starts anew, or the memories differ in
                width or number of heads.
        """
        sizes = set()
        for heads in (global_heads, *local_heads):
            projections = heads.projections
            sizes.add((projections.d_model, projections.n_heads))
        if len(sizes) > 1:
            raise ValueError(
                "all memories need the same d_model and n_heads, got "
                f"{', '.join(map(str, sorted(sizes)))}."
            )
        for heads in local_heads:
            if not isinstance(heads.rule, LocalRule):
                raise ValueError(
                    f"a local memory needs a LocalRule, got {type(heads.rule).__name__}"
                    ". Wrap it: LocalRule(rule, d, shard_len=...)."
                )
        self.global_heads = global_heads
        self.local_heads = local_heads
        ((d_model, n_heads),) = sizes
        self.read_out = ReadOut(
            d_model, n_heads, norm=read_norm, gate_start=gate_start, key=key
        )

    @classmethod
    def from_config(
        cls, d_model: int, config: MemoryConfig, *, key: PRNGKeyArray
    ) -> "HierarchicalMemory":
        """The layer that a config with `local.chunk_lens` describes.

        Raises:
            ValueError: If keys do not go together.
        """
        check_memory(config)
        key, global_key, *local_keys = jr.split(key, 2 + len(config.local.chunk_lens))
        d = max(1, d_model // config.n_heads)

        def local(chunk_len: int, key: PRNGKeyArray) -> MemoryHeads:
            return MemoryHeads.from_config(
                d_model,
                config.local,
                LocalRule(
                    build_rule(d, config.local, chunk_len=chunk_len, off=config.off),
                    d,
                    shard_len=config.local.shard_len,
                    qk_projection=config.local.qk_projection,
                ),
                n_heads=config.n_heads,
                block_len=block_len(chunk_len),
                key=key,
            )

        return cls(
            MemoryHeads.from_config(
                d_model,
                config,
                build_rule(d, config, chunk_len=config.chunk_len, off=config.off),
                n_heads=config.n_heads,
                block_len=block_len(config.chunk_len),
                key=global_key,
            ),
            tuple(map(local, config.local.chunk_lens, local_keys)),
            read_norm=config.read_norm,
            gate_start=config.gate_start,
            key=key,
        )

    @property
    def chunk_len(self) -> int:
        """See `AbstractMemory.chunk_len`: whole blocks of every memory."""
        return math.lcm(*(heads.block_len for heads in self._all_heads))

    @property
    def _all_heads(self) -> tuple[MemoryHeads, ...]:
        return (self.global_heads, *self.local_heads)

    def init_state(
        self, prefix: Float[Array, "n_persistent d_model"] | None = None
    ) -> HierarchicalState:
        """See `AbstractMemory.init_state`; the first shard has read the prefix."""

        def start_shard(state: NeuralMemoryState) -> NeuralMemoryState:
            # The prefix is not part of the shard that the sequence starts with.
            offset = jnp.zeros_like(_shard(state).shard_offset)
            return eqx.tree_at(lambda state: _shard(state).shard_offset, state, offset)

        first, *others = (heads.init_state(prefix) for heads in self._all_heads)
        return (first, *map(start_shard, others))

    def __call__(
        self,
        x: Float[Array, "seq d_model"],
        state: HierarchicalState | None = None,
        padding: Padding | None = None,
    ) -> tuple[Float[Array, "seq d_model"], HierarchicalState]:
        """See `AbstractMemory.__call__`; only a fresh sequence is read by shards."""
        if state is None and padding is None:
            whole = Padding.none(x.shape[0])
            answers = [
                self.global_heads.read_sequence(x, self.global_heads.init_state()),
                *(
                    heads.run(scan_shards, x, heads.init_state(), whole)
                    for heads in self.local_heads
                ),
            ]
        else:
            states = self.init_state() if state is None else state
            answers = [
                heads(x, one, padding)
                for heads, one in zip(self._all_heads, states, strict=True)
            ]
        reads, states = zip(*answers, strict=True)
        return self.read_out(x, _sum(reads)), states

    def read_documents(
        self,
        x: Float[Array, "seq d_model"],
        documents: Documents,
        fresh: HierarchicalState,
        state: HierarchicalState | None = None,
    ) -> tuple[Float[Array, "seq d_model"], HierarchicalState]:
        """See `AbstractMemory.read_documents`; shards are read one after another."""
        states = (None,) * len(fresh) if state is None else state
        answers = [
            heads.read_documents(x, documents, first, one)
            for heads, first, one in zip(self._all_heads, fresh, states, strict=True)
        ]
        reads, states = zip(*answers, strict=True)
        return self.read_out(x, _sum(reads)), states

    def step(
        self, x: Float[Array, " d_model"], state: HierarchicalState
    ) -> tuple[Float[Array, " d_model"], HierarchicalState]:
        """See `AbstractMemory.step`."""
        answers = [
            heads.step(x, one)
            for heads, one in zip(self._all_heads, state, strict=True)
        ]
        reads, states = zip(*answers, strict=True)
        return self.read_out(x[None], _sum(reads)[None])[0], states

    def snapshot(self, state: HierarchicalState) -> tuple[Snapshot, ...]:
        """See `AbstractMemory.snapshot`: fast weights, and projectors."""

        def local(heads: MemoryHeads, state: NeuralMemoryState) -> Snapshot:
            assert isinstance(heads.rule, LocalRule)
            projector = None if heads.rule.is_off else _shard(state).projector
            return Snapshot(state.heads.weights, projector)

        first, *others = state
        return (
            Snapshot(first.heads.weights, None),
            *map(local, self.local_heads, others),
        )

    def init_query_state(self) -> QueryStates:
        """See `AbstractMemory.init_query_state`: of the query convolutions."""
        return tuple(h.projections.query.conv.init_state() for h in self._all_heads)

    def retrieve(
        self,
        x: Float[Array, "positions d_model"],
        snapshot: tuple[Snapshot, ...],
        query_state: QueryStates,
        padding: Padding,
    ) -> tuple[Float[Array, "positions d_model"], QueryStates]:
        """See `AbstractMemory.retrieve`."""

        def read(
            heads: MemoryHeads, one: Snapshot, query_state: Array
        ) -> tuple[Float[Array, "positions heads d"], Array]:
            queries, query_state = heads.projections.queries(x, query_state, padding)
            if one.projector is not None:
                queries = jnp.einsum("phd,hde->phe", queries, one.projector)
            over_heads = jax.vmap(heads.net, (0, HEAD_AXIS), HEAD_AXIS)
            return over_heads(one.weights, queries), query_state

        answers = map(read, self._all_heads, snapshot, query_state)
        reads, query_states = zip(*answers, strict=True)
        return self.read_out(x, _sum(reads)), query_states

    def probe(
        self, x: Float[Array, " d_model"], state: HierarchicalState
    ) -> MemoryStats:
        """See `AbstractMemory.probe`: the heads of all memories, the global ones first.

        Gates are named by their memory: `global.decay`, `local1.decay`.
        """
        stats = [
            heads.probe(x, one)
            for heads, one in zip(self._all_heads, state, strict=True)
        ]
        names = ["global", *(f"local{i + 1}" for i in range(len(self.local_heads)))]
        return MemoryStats(
            surprise=jnp.concatenate([s.surprise for s in stats]),
            gates={
                f"{memory}.{gate}": values
                for memory, s in zip(names, stats, strict=True)
                for gate, values in s.gates.items()
            },
            weight_norm=jnp.concatenate([s.weight_norm for s in stats]),
        )


def _shard(state: NeuralMemoryState) -> LocalState:
    assert isinstance(state.heads, LocalState)
    return state.heads


def _sum(reads: Sequence[Float[Array, "*positions heads d"]]) -> Array:
    return sum(reads[1:], start=reads[0])
