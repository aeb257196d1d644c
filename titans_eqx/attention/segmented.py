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
from jaxtyping import Array, Float, Int, PRNGKeyArray

from titans_eqx.attention.heads import AttentionHeads, heads_first
from titans_eqx.nn.padding import Span


class SegmentCache(eqx.Module):
    """Rotated keys, and values, of the current segment; slots to come are zero.

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

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_persistent: int,
        segment_len: int,
        rope_base: float,
        *,
        key: PRNGKeyArray,
    ) -> None:
        """Build the attention of one layer.

        Args:
            d_model: Width of the stream.
            n_heads: Attention heads.
            n_persistent: Persistent tokens.
            segment_len: Tokens of a segment.
            rope_base: Wavelength base of the rotary positions.
            key: Random key.
        """
        self.heads = AttentionHeads(d_model, n_heads, n_persistent, rope_base, key=key)
        self.segment_len = segment_len

    def init_state(self) -> SegmentCache:
        """An empty segment."""
        shape = (self.heads.n_heads, self.segment_len, self.heads.d_head)
        empty = jnp.zeros(shape, self.heads.persistent_tokens.dtype)
        return SegmentCache(empty, empty, empty, empty)

    def __call__(
        self,
        x: Float[Array, "segment d_model"],
        memories: Float[Array, "segment d_model"],
        span: Span,
        cache: SegmentCache,
    ) -> tuple[Float[Array, "segment d_model"], SegmentCache]:
        """Attend from the real slots of one segment.

        Args:
            x: Tokens of the segment, one row a slot.
            memories: What the memory retrieved for each of them.
            span: Which slots are real; slots before them are taken from the cache.
            cache: The part of the segment that was read before.

        Returns:
            Outputs (meaningless at padding), and the cache with the real slots filled
            in.
        """
        slots = jnp.arange(span.length, dtype=jnp.int32)
        cache = jax.vmap(span.overlay)(self._entries(x, memories, slots), cache)
        return self._attend(x, slots, cache), cache

    def step(
        self,
        x: Float[Array, " d_model"],
        memory: Float[Array, " d_model"],
        slot: Int[Array, ""],
        cache: SegmentCache,
    ) -> tuple[Float[Array, " d_model"], SegmentCache]:
        """Attend from one token.

        Args:
            x: The token.
            memory: What the memory retrieved for it.
            slot: Its place in the segment.
            cache: The part of the segment that was read before.

        Returns:
            Its output, and the cache with its slot filled in.
        """
        rows, slots = x[None, :], slot[None]
        entry = self._entries(rows, memory[None, :], slots)
        cache = jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, slot, 1),
            cache,
            entry,
        )
        return self._attend(rows, slots, cache)[0], cache

    def _entries(
        self,
        x: Float[Array, "seq d_model"],
        memories: Float[Array, "seq d_model"],
        slots: Int[Array, " seq"],
    ) -> SegmentCache:
        heads = self.heads
        return SegmentCache(
            token_keys=heads_first(heads.rotate(heads.keys(x), slots)),
            token_values=heads_first(heads.values(x)),
            memory_keys=heads_first(heads.rotate(heads.keys(memories), slots)),
            memory_values=heads_first(heads.values(memories)),
        )

    def _attend(
        self,
        x: Float[Array, "seq d_model"],
        slots: Int[Array, " seq"],
        cache: SegmentCache,
    ) -> Float[Array, "seq d_model"]:
        all_slots = jnp.arange(self.segment_len, dtype=jnp.int32)
        is_past = slots[:, None] >= all_slots[None, :]
        y = self.heads.attend(
            self.heads.queries(x),
            slots,
            jnp.concatenate([cache.memory_keys, cache.token_keys], axis=1),
            jnp.concatenate([cache.memory_values, cache.token_values], axis=1),
            jnp.concatenate([is_past, is_past], axis=1),
        )
        return self.heads.output(y)
