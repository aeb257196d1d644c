"""Attention inside segments, with memories as context (MAC).

Query `i` of a segment sees the persistent tokens, the retrieved memories `h_j` and the
tokens `x_j` with `j <= i`. `h_j` and `x_j` share position `j` of the segment. The
convolutions of tokens, if there are any, do not end with a segment; memories have none.

Deviation: the paper puts all memories of a segment in front of it, where token `i`
would see `h_j` of later tokens, which are functions of those tokens. We give memories
the causal mask of the tokens they were retrieved for.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from titans_eqx.attention.heads import HEADS_FIRST, AttentionHeads, ConvStates
from titans_eqx.errors import check_size
from titans_eqx.nn.conv import CausalConv
from titans_eqx.nn.linear import linear_rows
from titans_eqx.nn.padding import Padding
from titans_eqx.nn.rope import rotate

Entries = tuple[Float[Array, "heads seq d_head"], ...]


class SegmentCache(eqx.Module):
    """Rotated keys, and values, of the current segment; positions to come are zero.

    Laid out as the products need them, or each decoded token would transpose them all.
    """

    token_keys: Float[Array, "heads segment d_head"]
    token_values: Float[Array, "heads segment d_head"]
    memory_keys: Float[Array, "heads segment d_head"]
    memory_values: Float[Array, "heads segment d_head"]
    conv_states: ConvStates

    @property
    def entries(self) -> Entries:
        """Keys and values, in the order of the fields."""
        keys_and_values = (self.token_keys, self.token_values)
        return (*keys_and_values, self.memory_keys, self.memory_values)


class SegmentAttention(eqx.Module):
    """Causal attention over [persistent | memories | tokens] of one segment."""

    heads: AttentionHeads
    convs: tuple[CausalConv, ...]  # see `attention_convs`

    segment_len: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        """Check the length.

        Raises:
            ValueError: If a segment has no tokens.
        """
        check_size("segment_len", self.segment_len)

    def init_state(self) -> SegmentCache:
        """An empty segment."""
        shape = (self.heads.n_heads, self.segment_len, self.heads.d_head)
        empty = jnp.zeros(shape, self.heads.persistent_tokens.dtype)
        conv_states = tuple(conv.init_state() for conv in self.convs)
        return SegmentCache(empty, empty, empty, empty, conv_states)

    def __call__(
        self,
        x: Float[Array, "segment d_model"],
        memories: Float[Array, "segment d_model"],
        cache: SegmentCache,
        padding: Padding,
    ) -> tuple[Float[Array, "segment d_model"], SegmentCache]:
        """Attend from the real positions of one segment.

        Args:
            x: Tokens of the segment.
            memories: What the memory retrieved for each of them.
            cache: The part of the segment that was read before.
            padding: Positions before the real ones are taken from the cache.

        Returns:
            Outputs (meaningless at padding), and the cache with the real positions
            filled in.
        """
        positions = jnp.arange(padding.length, dtype=jnp.int32)
        queries, entries, conv_states = self._project(
            x, memories, positions, cache.conv_states, padding
        )
        entries = jax.vmap(padding.merge)(entries, cache.entries)
        cache = SegmentCache(*entries, conv_states=conv_states)
        return self._attend(queries, positions, cache), cache

    def step(
        self,
        x: Float[Array, " d_model"],
        memory: Float[Array, " d_model"],
        cache: SegmentCache,
        position: Int[Array, ""],
    ) -> tuple[Float[Array, " d_model"], SegmentCache]:
        """Attend from the token at one position; see `__call__`."""
        positions = position[None]
        queries, entry, conv_states = self._project(
            x[None, :], memory[None, :], positions, cache.conv_states, Padding.none(1)
        )
        entries = jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, position, 1),
            cache.entries,
            entry,
        )
        cache = SegmentCache(*entries, conv_states=conv_states)
        return self._attend(queries, positions, cache)[0], cache

    def _project(
        self,
        x: Float[Array, "seq d_model"],
        memories: Float[Array, "seq d_model"],
        positions: Int[Array, " seq"],
        conv_states: ConvStates,
        padding: Padding,
    ) -> tuple[Float[Array, "seq heads d_head"], Entries, ConvStates]:
        heads = self.heads
        (queries, *of_tokens), conv_states = heads.project(
            x, self.convs, conv_states, padding
        )
        of_memories = [
            heads.split(linear_rows(projection, memories))
            for projection in (heads.key_projection, heads.value_projection)
        ]
        entries = []
        for keys, values in (of_tokens, of_memories):
            keys = rotate(keys, positions, base=heads.rope_base)
            entries += [rearrange(rows, HEADS_FIRST) for rows in (keys, values)]
        return queries, tuple(entries), conv_states

    def _attend(
        self,
        queries: Float[Array, "seq heads d_head"],
        positions: Int[Array, " seq"],
        cache: SegmentCache,
    ) -> Float[Array, "seq d_model"]:
        all_positions = jnp.arange(self.segment_len, dtype=jnp.int32)
        is_past = positions[:, None] >= all_positions[None, :]
        groups = (
            (self.heads.scores(queries, positions, keys, is_past), values)
            for keys, values in (
                (cache.memory_keys, cache.memory_values),
                (cache.token_keys, cache.token_values),
            )
        )
        return self.heads.attend(queries, *groups)
