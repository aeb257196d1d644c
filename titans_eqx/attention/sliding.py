"""Sliding-window attention with a persistent prefix (MAG, MAL, baseline).

Token `i` sees the persistent tokens and the last `window` tokens, itself included. A
sequence is cut into blocks of one window; a block looks at itself and the block before,
so time and memory grow linearly with length. What fits in one window is not cut: it
looks at itself, and at the cache if it goes on with a stream. A window as long as the
sequence is full attention.

Keys and values are cached in a ring, in which a decoded token overwrites the oldest: it
moves no other. A key is rotated once, by its slot in the ring. Scores depend only on
differences of positions, so a stream needs no absolute position and loses no precision
however long it runs: a query in slot `s` meets the keys of slots up to `s` at position
`s`, and those behind it, which are a turn of the ring older, at `s + window`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from titans_eqx.attention.heads import HEADS_FIRST, AttentionHeads, ConvStates
from titans_eqx.errors import check_size
from titans_eqx.nn.conv import CausalConv
from titans_eqx.nn.documents import Documents
from titans_eqx.nn.padding import Padding
from titans_eqx.nn.rope import rotate


class WindowCache(eqx.Module):
    """Keys, rotated by their slot, and values of the last `window` tokens.

    Token `i` of a stream lies in slot `i % window`; slots that it has not come to yet
    hold nothing that is looked at.
    """

    keys: Float[Array, "heads window d_head"]
    values: Float[Array, "heads window d_head"]
    n_read: Int[Array, ""]  # tokens, without whole turns of a full ring: < 2 windows
    conv_states: ConvStates


class SlidingAttention(eqx.Module):
    """Causal attention over [persistent | the last `window` tokens]."""

    heads: AttentionHeads
    convs: tuple[CausalConv, ...]  # see `attention_convs`

    window: int = eqx.field(static=True)  # tokens that a token sees, itself included

    def __check_init__(self) -> None:
        """Check the length.

        Raises:
            ValueError: If a window has no tokens.
        """
        check_size("window", self.window)

    def init_state(self) -> WindowCache:
        """Nothing was read yet."""
        shape = (self.heads.n_heads, self.window, self.heads.d_head)
        empty = jnp.zeros(shape, self.heads.persistent_tokens.dtype)
        conv_states = tuple(conv.init_state() for conv in self.convs)
        return WindowCache(empty, empty, jnp.zeros((), jnp.int32), conv_states)

    def __call__(
        self,
        x: Float[Array, "seq d_model"],
        cache: WindowCache | None = None,
        documents: Documents | None = None,
    ) -> tuple[Float[Array, "seq d_model"], WindowCache]:
        """Attend from every token.

        Args:
            x: Tokens, at least one.
            cache: The window before them; None for a fresh sequence.
            documents: Where documents start, of which none sees another.

        Returns:
            Outputs, and the window after the last token.
        """
        n_tokens, window = x.shape[0], self.window
        is_fresh = cache is None
        cache = self.init_state() if cache is None else cache
        (queries, keys, values), conv_states = self.heads.project(
            x, self.convs, cache.conv_states, Padding.none(n_tokens), documents
        )
        numbers, n_read = None, cache.n_read + n_tokens
        if documents is not None:
            numbers = documents.numbers
            n_read = jnp.where(documents.is_continued, n_read, documents.last_len)
        # As if the last document had started the ring.
        slots = (n_read - n_tokens + jnp.arange(n_tokens, dtype=jnp.int32)) % window
        old_keys, old_values = self._oldest_first(cache)
        new_keys = self._rotate(keys[-window:], slots[-window:])
        after = WindowCache(
            keys=self._ring(jnp.concatenate([old_keys, new_keys]), n_read),
            values=self._ring(jnp.concatenate([old_values, values]), n_read),
            n_read=self._within_turns(n_read),
            conv_states=conv_states,
        )
        turned = jnp.zeros(n_tokens, jnp.int32)
        n_hidden = jnp.zeros((), jnp.int32)
        if not is_fresh or n_tokens > window:
            # The cache comes first; some of it may lie before the stream began.
            old_slots = (cache.n_read + jnp.arange(window, dtype=jnp.int32)) % window
            keys = jnp.concatenate([old_keys, keys])
            values = jnp.concatenate([old_values, values])
            turned = jnp.concatenate([old_slots, turned])
            n_hidden = jnp.maximum(window - cache.n_read, 0)
            if numbers is not None:
                # The window before the row is of document 0.
                numbers = jnp.pad(numbers, (window, 0))
        attend = self._attend if n_tokens <= window else self._attend_in_blocks
        return attend(queries, keys, values, turned, n_hidden, numbers), after

    def step(
        self, x: Float[Array, " d_model"], cache: WindowCache
    ) -> tuple[Float[Array, " d_model"], WindowCache]:
        """Attend from one token; see `__call__`."""
        (queries, key, value), conv_states = self.heads.project(
            x[None, :], self.convs, cache.conv_states, Padding.none(1)
        )
        window = self.window
        slot = cache.n_read % window
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(
                old, rearrange(new, HEADS_FIRST), slot, axis=1
            )
            for old, new in (
                (cache.keys, self._rotate(key, slot[None])),
                (cache.values, value),
            )
        )
        slots = jnp.arange(window, dtype=jnp.int32)
        is_filled = slots <= cache.n_read
        # Two products of one row: on a CPU they take half the time of one of two.
        from_here, from_a_turn_later = (
            self.heads.scores(queries, position[None], keys, is_filled[None])
            for position in (slot, slot + window)
        )
        scores = jnp.where(slots <= slot, from_here, from_a_turn_later)
        n_read = self._within_turns(cache.n_read + 1)
        after = WindowCache(keys, values, n_read, conv_states)
        return self.heads.attend(queries, (scores, values))[0], after

    def _rotate(
        self, keys: Float[Array, "seq heads d_head"], positions: Int[Array, " seq"]
    ) -> Float[Array, "seq heads d_head"]:
        return rotate(keys, positions, base=self.heads.rope_base)

    def _within_turns(self, n_read: Int[Array, ""]) -> Int[Array, ""]:
        """A count for the cache: less than two windows, with the same slots."""
        window = self.window
        return jnp.where(n_read < window, n_read, window + n_read % window)

    def _oldest_first(
        self, cache: WindowCache
    ) -> tuple[Float[Array, "window heads d_head"], ...]:
        """Keys, still rotated by their slots, and values of the last tokens."""
        return tuple(
            rearrange(
                jnp.roll(ring, -cache.n_read, axis=1), "heads seq d -> seq heads d"
            )
            for ring in (cache.keys, cache.values)
        )

    def _ring(
        self, rows: Float[Array, "seq heads d_head"], n_read: Int[Array, ""]
    ) -> Float[Array, "heads window d_head"]:
        """The last `window` of some rows as they lie in the ring."""
        return jnp.roll(rearrange(rows[-self.window :], HEADS_FIRST), n_read, axis=1)

    def _attend_in_blocks(
        self,
        queries: Float[Array, "q_seq heads d_head"],
        keys: Float[Array, "kv_seq heads d_head"],
        values: Float[Array, "kv_seq heads d_head"],
        turned: Int[Array, " kv_seq"],
        n_hidden: Int[Array, ""],
        numbers: Int[Array, " kv_seq"] | None,
    ) -> Float[Array, "q_seq d_model"]:
        """`_attend` on blocks of one window; one window of keys is before the queries.

        Each block looks at itself and the one before.
        """
        window, n_tokens = self.window, queries.shape[0]
        n_blocks = -(-n_tokens // window)

        def blocks(x: Array) -> Array:
            n_added = -x.shape[0] % window
            x = jnp.pad(x, [(0, n_added)] + [(0, 0)] * (x.ndim - 1))
            return x.reshape(-1, window, *x.shape[1:])

        def with_block_before(x: Array) -> Array:
            x = blocks(x)
            return jnp.concatenate([x[:-1], x[1:]], axis=1)

        block_starts = jnp.arange(n_blocks, dtype=jnp.int32) * window
        y = jax.vmap(self._attend)(
            blocks(queries),
            with_block_before(keys),
            with_block_before(values),
            with_block_before(turned),
            jnp.maximum(n_hidden - block_starts, 0),
            None if numbers is None else with_block_before(numbers),
        )
        return y.reshape(-1, y.shape[2])[:n_tokens]

    def _attend(
        self,
        queries: Float[Array, "q_seq heads d_head"],
        keys: Float[Array, "kv_seq heads d_head"],
        values: Float[Array, "kv_seq heads d_head"],
        turned: Int[Array, " kv_seq"],
        n_hidden: Int[Array, ""],
        numbers: Int[Array, " kv_seq"] | None,
    ) -> Float[Array, "q_seq d_model"]:
        """Attention of the last `q_seq` rows.

        The first `n_hidden` keys are hidden, and those with another document's number.
        Keys come rotated by the positions `turned`, for which their rows are taken.
        """
        key_rows = jnp.arange(keys.shape[0], dtype=jnp.int32)
        query_rows = key_rows[keys.shape[0] - queries.shape[0] :]
        distance = query_rows[:, None] - key_rows[None, :]
        is_visible = (distance >= 0) & (distance < self.window)
        is_visible &= (key_rows >= n_hidden)[None, :]
        if numbers is not None:
            is_visible &= numbers[query_rows][:, None] == numbers[None, :]
        keys = rearrange(self._rotate(keys, key_rows - turned), HEADS_FIRST)
        scores = self.heads.scores(queries, query_rows, keys, is_visible)
        return self.heads.attend(queries, (scores, rearrange(values, HEADS_FIRST)))
