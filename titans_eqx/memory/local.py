"""Local memories of TNT: any rule, started anew after every shard (arXiv 2511.07343).

A shard is a fixed number of chunks. At its end the memory goes back to its initial
weights, so shards of one sequence depend on each other no more than sequences do, and
`scan_shards` reads them side by side: as many steps in sequence as a shard has chunks,
not as the sequence has.

Queries are led through the keys that the shard has seen, since a memory answers well
only near the keys it was written with:

    Pi_t = sum_{shard start <= i <= t} k_i k_i^T,    y_t = M_t(Pi_t q_t)

Reading: one printed formula sums from the chunk's start; the text and the appendix say
from the reset, which is what is done here.
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, PyTree

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.inputs import GateSpec, MemoryInputs
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.outer_gradient import OuterGradient
from titans_eqx.memory.read_only import ReadOnlyRule
from titans_eqx.memory.rule import AbstractRule, AbstractRuleState
from titans_eqx.memory.scan import scan_aligned
from titans_eqx.nn.padding import Padding
from titans_eqx.nn.remat import save_for_backward
from titans_eqx.nn.tree import select


class LocalState(AbstractRuleState):
    """The state of the rule inside, and where the shard stands."""

    inner: AbstractRuleState
    projector: Float[Array, "d d"] | None  # Pi_t
    shard_offset: Int[Array, ""]  # tokens read of the shard

    def __init__(
        self,
        inner: AbstractRuleState,
        projector: Float[Array, "d d"] | None,
        shard_offset: Int[Array, ""],
    ) -> None:
        """Keep the parts."""
        self.inner = inner
        self.projector = projector
        self.shard_offset = shard_offset

    # Without types: `eqx.tree_at` calls them with markers in place of arrays.
    @property
    def weights(self):
        """M_t."""
        return self.inner.weights

    @property
    def chunk_offset(self):
        """Tokens read of the current chunk."""
        return self.inner.chunk_offset


class LocalRule(AbstractRule[LocalState]):
    """A rule whose memory starts anew after every `shard_len` tokens."""

    rule: AbstractRule

    d: int = eqx.field(static=True)
    shard_len: int = eqx.field(static=True)
    qk_projection: bool = eqx.field(static=True)
    chunk_len: int = eqx.field(static=True)
    outer_gradient: OuterGradient = eqx.field(static=True)

    def __init__(
        self, rule: AbstractRule, d: int, *, shard_len: int, qk_projection: bool = True
    ) -> None:
        """Wrap a rule.

        Args:
            rule: How the memory is written and read within a shard.
            d: Width of keys and queries.
            shard_len: Tokens of a shard; a multiple of the rule's chunk length.
            qk_projection: Whether queries are led through the keys of the shard.

        Raises:
            ValueError: If a shard is not a whole number of chunks.
        """
        if shard_len < 1 or shard_len % rule.chunk_len != 0:
            raise ValueError(
                "shard_len must be a multiple of the rule's chunk_len, got "
                f"shard_len={shard_len} and chunk_len={rule.chunk_len}."
            )
        self.rule = rule
        self.d = d
        self.shard_len = shard_len
        self.qk_projection = qk_projection
        self.chunk_len = rule.chunk_len
        self.outer_gradient = rule.outer_gradient

    @property
    def is_off(self) -> bool:
        """Whether nothing is written; then no key leads a query anywhere either."""
        return isinstance(self.rule, ReadOnlyRule)

    def gate_specs(self, net: AbstractMemoryNet) -> Mapping[str, GateSpec]:
        """Those of the rule."""
        return self.rule.gate_specs(net)

    def init_state(self, weights: MemoryWeights) -> LocalState:
        """See `AbstractRule.init_state`: the start of a shard."""
        inner = self.rule.init_state(weights)
        zeros = jnp.zeros((self.d, self.d), inner.weights[0].dtype)
        return LocalState(
            inner=inner,
            projector=zeros if self.qk_projection else None,
            shard_offset=jnp.zeros((), jnp.int32),
        )

    def end_chunk(self, state: LocalState) -> PyTree[Array]:
        """See `AbstractRule.end_chunk`."""
        return self.rule.end_chunk(state.inner), state.projector, state.shard_offset

    def start_chunk(self, carry: PyTree[Array]) -> LocalState:
        """See `AbstractRule.start_chunk`."""
        inner, projector, shard_offset = carry
        return LocalState(self.rule.start_chunk(inner), projector, shard_offset)

    def surprise(
        self, net: AbstractMemoryNet, token: MemoryInputs, state: LocalState
    ) -> MemoryWeights:
        """See `AbstractRule.surprise`."""
        return self.rule.surprise(net, token, state.inner)

    def step(
        self,
        net: AbstractMemoryNet,
        token: MemoryInputs,
        state: LocalState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, " d"], LocalState]:
        """See `AbstractRule.step`."""
        queries, projector = token.queries, state.projector
        if projector is not None and not self.is_off:
            projector = projector + jnp.outer(token.keys, token.keys)
            queries = projector @ queries
        token = eqx.tree_at(lambda token: token.queries, token, queries)
        y, inner = self.rule.step(net, token, state.inner, initial)
        state = LocalState(inner, projector, state.shard_offset + 1)
        return y, self._end_shard(state, initial)

    def chunk(
        self,
        net: AbstractMemoryNet,
        inputs: MemoryInputs,
        is_real: Bool[Array, " chunk"],
        state: LocalState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, "chunk d"], LocalState]:
        """See `AbstractRule.chunk`."""
        queries, projector = inputs.queries, state.projector
        if projector is not None and not self.is_off:
            keys = jnp.where(is_real[:, None], inputs.keys, 0)
            scores = jnp.tril(save_for_backward(queries @ keys.T))
            queries = save_for_backward(queries @ projector) + scores @ keys
            projector = projector + keys.T @ keys
        inputs = eqx.tree_at(lambda inputs: inputs.queries, inputs, queries)
        reads, inner = self.rule.chunk(net, inputs, is_real, state.inner, initial)
        offset = state.shard_offset + jnp.sum(is_real, dtype=jnp.int32)
        return reads, self._end_shard(LocalState(inner, projector, offset), initial)

    def _end_shard(
        self, state: LocalState, initial: MemoryWeights | None
    ) -> LocalState:
        """The start of a shard in place of the end of one."""
        if initial is None:
            raise ValueError(
                "LocalRule goes back to the initial weights M_0, got initial=None. "
                "Pass initial=..."
            )
        # The end of the chunk itself is for the caller to see.
        start = eqx.tree_at(
            lambda state: state.chunk_offset,
            self.init_state(initial),
            state.chunk_offset,
        )
        return select(state.shard_offset == self.shard_len, start, state)


def scan_shards(
    rule: LocalRule,
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    state: LocalState,
    *,
    initial: MemoryWeights,
) -> tuple[Float[Array, "seq d"], LocalState]:
    """`scan_chunks` from the start of a sequence, with all whole shards side by side.

    Args:
        rule: The update rule.
        net: Structure of the memory.
        inputs: The tokens of a sequence.
        state: The memory before the first of them, as `init_state` made it.
        initial: M_0, which every shard starts from.

    Returns:
        Reads `y_t`, and the memory after the last token.
    """
    n_tokens = inputs.keys.shape[0]
    whole = Padding.none(n_tokens)

    def scan(
        part: MemoryInputs, first: Int[Array, ""]
    ) -> tuple[Float[Array, "part d"], LocalState]:
        # The outer gradient stops where it does in `scan_tokens`, which counts chunks
        # from the start of the sequence: maybe after the last one before the shard.
        n_chunks = first // rule.chunk_len
        start = rule.outer_gradient.truncate(state, n_chunks, first > 0)
        padding = whole.block(first, part.keys.shape[0])
        return scan_aligned(rule, net, part, start, padding, initial=initial)

    n_shards = n_tokens // rule.shard_len
    n_whole = n_shards * rule.shard_len
    parts, last = [], state
    if n_shards > 0:
        pattern = "(n shard) ... -> n shard ..."
        shards = jax.tree.map(
            lambda x: rearrange(x[:n_whole], pattern, n=n_shards), inputs
        )
        firsts = rule.shard_len * jnp.arange(n_shards, dtype=jnp.int32)
        reads, states = jax.vmap(scan)(shards, firsts)
        parts.append(rearrange(reads, "n shard d -> (n shard) d"))
        last = jax.tree.map(lambda x: x[-1], states)
    if n_whole < n_tokens:
        rest = jax.tree.map(lambda x: x[n_whole:], inputs)
        reads, last = scan(rest, jnp.asarray(n_whole, jnp.int32))
        parts.append(reads)
    return jnp.concatenate(parts), last
