"""Sliding-window attention with a persistent prefix (MAG, MAL, baseline).

Token `i` sees the persistent tokens and the last `window` tokens, itself included. A
sequence is cut into blocks of one window; a block looks at itself and the block before,
so time and memory grow linearly with length. A window as long as the sequence is full
attention.

Keys are cached without their rotation and turned when they are used, by their place in
the window. Scores depend only on differences of positions, so a stream needs no
absolute position and loses no precision however long it runs.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from titans_eqx.attention.heads import HEADS_FIRST, AttentionHeads, ConvStates
from titans_eqx.nn.conv import CausalConv
from titans_eqx.nn.documents import Documents
from titans_eqx.nn.padding import Padding
from titans_eqx.nn.rope import rotate


class WindowCache(eqx.Module):
    """Keys (not rotated) and values of the last `window` tokens, oldest first."""

    keys: Float[Array, "window heads d_head"]
    values: Float[Array, "window heads d_head"]
    n_cached: Int[Array, ""]  # how many of the last rows are real
    conv_states: ConvStates


class SlidingAttention(eqx.Module):
    """Causal attention over [persistent | the last `window` tokens]."""

    heads: AttentionHeads
    convs: tuple[CausalConv, ...]  # see `attention_convs`

    window: int = eqx.field(static=True)  # tokens that a token sees, itself included

    def init_state(self) -> WindowCache:
        """Nothing was read yet."""
        shape = (self.window, self.heads.n_heads, self.heads.d_head)
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
        numbers, n_own = None, cache.n_cached + n_tokens
        if documents is not None:
            numbers = documents.numbers
            n_own = jnp.where(documents.is_continued, n_own, documents.last_len)
        after = WindowCache(
            keys=jnp.concatenate([cache.keys, keys])[-window:],
            values=jnp.concatenate([cache.values, values])[-window:],
            n_cached=jnp.minimum(n_own, window),
            conv_states=conv_states,
        )
        if is_fresh and n_tokens <= window:
            # The whole sequence fits in one window: no block before it to look at.
            n_hidden = jnp.zeros((), jnp.int32)
            return self._attend(queries, keys, values, n_hidden, numbers), after

        n_blocks = -(-n_tokens // window)
        padding = [(0, n_blocks * window - n_tokens), (0, 0), (0, 0)]
        keys = jnp.concatenate([cache.keys, jnp.pad(keys, padding)])
        values = jnp.concatenate([cache.values, jnp.pad(values, padding)])

        def blocks(x: Array) -> Array:
            return x.reshape(-1, window, *x.shape[1:])

        def with_block_before(x: Array) -> Array:
            x = blocks(x)
            return jnp.concatenate([x[:-1], x[1:]], axis=1)

        block_starts = jnp.arange(n_blocks, dtype=jnp.int32) * window
        # Rows of the first block that lie before the stream began.
        n_hidden = jnp.maximum(window - cache.n_cached - block_starts, 0)
        if numbers is not None:
            # The window before the row is of document 0.
            numbers = with_block_before(jnp.pad(numbers, (window, padding[0][1])))
        y = jax.vmap(self._attend)(
            blocks(jnp.pad(queries, padding)),
            with_block_before(keys),
            with_block_before(values),
            n_hidden,
            numbers,
        )
        return y.reshape(-1, y.shape[2])[:n_tokens], after

    def step(
        self, x: Float[Array, " d_model"], cache: WindowCache
    ) -> tuple[Float[Array, " d_model"], WindowCache]:
        """Attend from one token; see `__call__`."""
        (queries, key, value), conv_states = self.heads.project(
            x[None, :], self.convs, cache.conv_states, Padding.none(1)
        )
        after = WindowCache(
            keys=jnp.concatenate([cache.keys[1:], key]),
            values=jnp.concatenate([cache.values[1:], value]),
            n_cached=jnp.minimum(cache.n_cached + 1, self.window),
            conv_states=conv_states,
        )
        n_hidden = self.window - after.n_cached
        return self._attend(queries, after.keys, after.values, n_hidden)[0], after

    def _attend(
        self,
        queries: Float[Array, "q_seq heads d_head"],
        keys: Float[Array, "kv_seq heads d_head"],
        values: Float[Array, "kv_seq heads d_head"],
        n_hidden: Int[Array, ""],
        numbers: Int[Array, " kv_seq"] | None = None,
    ) -> Float[Array, "q_seq d_model"]:
        """Attention of the last `q_seq` rows.

        The first `n_hidden` keys are hidden, and those with another document's number.
        """
        key_rows = jnp.arange(keys.shape[0], dtype=jnp.int32)
        query_rows = key_rows[keys.shape[0] - queries.shape[0] :]
        distance = query_rows[:, None] - key_rows[None, :]
        is_visible = (distance >= 0) & (distance < self.window)
        is_visible &= (key_rows >= n_hidden)[None, :]
        if numbers is not None:
            is_visible &= numbers[query_rows][:, None] == numbers[None, :]
        keys = rotate(keys, key_rows, base=self.heads.rope_base)
        return self.heads.attend(
            queries,
            query_rows,
            rearrange(keys, HEADS_FIRST),
            rearrange(values, HEADS_FIRST),
            is_visible,
        )
