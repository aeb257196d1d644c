"""Attention inside segments, with memories as context (MAC).

Query `i` of a segment sees the persistent tokens, the retrieved memories `h_j` and the
tokens `x_j` with `j <= i`. `h_j` and `x_j` share position `j` of the segment.

Deviation: the paper puts all memories of a segment in front of it, where token `i`
would see `h_j` of later tokens, which are functions of those tokens. We give memories
the causal mask of the tokens they were retrieved for.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from titans_eqx.attention.heads import HEADS_FIRST, AttentionHeads
from titans_eqx.nn.linear import linear_rows
from titans_eqx.nn.padding import Padding
from titans_eqx.nn.rope import rotate


class SegmentCache(eqx.Module):
    """Rotated keys, and values, of the current segment; positions to come are zero.

    Laid out as the products need them, or each decoded token would transpose them all.
    """

    token_keys: Float[Array, "heads segment d_head"]
    token_values: Float[Array, "heads segment d_head"]
    memory_keys: Float[Array, "heads segment d_head"]
    memory_values: Float[Array, "heads segment d_head"]


class SegmentAttention(eqx.Module):
    """Causal attention over [persistent | memories | tokens] of one segment."""

    heads: AttentionHeads

    segment_len: int = eqx.field(static=True)

    def init_state(self) -> SegmentCache:
        """An empty segment."""
        shape = (self.heads.n_heads, self.segment_len, self.heads.d_head)
        empty = jnp.zeros(shape, self.heads.persistent_tokens.dtype)
        return SegmentCache(empty, empty, empty, empty)

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
        entries = self._entries(x, memories, positions)
        cache = jax.vmap(padding.merge)(entries, cache)
        return self._attend(x, positions, cache), cache

    def step(
        self,
        x: Float[Array, " d_model"],
        memory: Float[Array, " d_model"],
        cache: SegmentCache,
        position: Int[Array, ""],
    ) -> tuple[Float[Array, " d_model"], SegmentCache]:
        """Attend from the token at one position; see `__call__`."""
        rows, positions = x[None, :], position[None]
        entry = self._entries(rows, memory[None, :], positions)
        cache = jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, position, 1),
            cache,
            entry,
        )
        return self._attend(rows, positions, cache)[0], cache

    def _entries(
        self,
        x: Float[Array, "seq d_model"],
        memories: Float[Array, "seq d_model"],
        positions: Int[Array, " seq"],
    ) -> SegmentCache:
        heads = self.heads

        def keys_and_values(rows: Array) -> tuple[Array, Array]:
            keys = heads.split(linear_rows(heads.key_projection, rows))
            values = heads.split(linear_rows(heads.value_projection, rows))
            keys = rotate(keys, positions, base=heads.rope_base)
            return rearrange(keys, HEADS_FIRST), rearrange(values, HEADS_FIRST)

        return SegmentCache(*keys_and_values(x), *keys_and_values(memories))

    def _attend(
        self,
        x: Float[Array, "seq d_model"],
        positions: Int[Array, " seq"],
        cache: SegmentCache,
    ) -> Float[Array, "seq d_model"]:
        all_positions = jnp.arange(self.segment_len, dtype=jnp.int32)
        is_past = positions[:, None] >= all_positions[None, :]
        return self.heads.attend(
            self.heads.split(linear_rows(self.heads.query_projection, x)),
            positions,
            jnp.concatenate([cache.memory_keys, cache.token_keys], axis=1),
            jnp.concatenate([cache.memory_values, cache.token_values], axis=1),
            jnp.concatenate([is_past, is_past], axis=1),
        )
