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
from jaxtyping import Array, Float, Int, PRNGKeyArray

from titans_eqx.attention.heads import AttentionHeads, heads_first


class WindowCache(eqx.Module):
    """Keys (not rotated) and values of the last `window` tokens, oldest first."""

    keys: Float[Array, "window heads d_head"]
    values: Float[Array, "window heads d_head"]
    n_cached: Int[Array, ""]  # how many of the last rows are real


class SlidingAttention(eqx.Module):
    """Causal attention over [persistent | the last `window` tokens]."""

    heads: AttentionHeads

    window: int = eqx.field(static=True)

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_persistent: int,
        window: int,
        rope_base: float,
        *,
        key: PRNGKeyArray,
    ) -> None:
        """Build the attention of one layer.

        Args:
            d_model: Width of the stream.
            n_heads: Attention heads.
            n_persistent: Persistent tokens, outside the window's budget.
            window: Tokens a token sees, itself included.
            rope_base: Wavelength base of the rotary positions.
            key: Random key.
        """
        self.heads = AttentionHeads(d_model, n_heads, n_persistent, rope_base, key=key)
        self.window = window

    def init_state(self) -> WindowCache:
        """Nothing was read yet."""
        shape = (self.window, self.heads.n_heads, self.heads.d_head)
        empty = jnp.zeros(shape, self.heads.persistent_tokens.dtype)
        return WindowCache(empty, empty, jnp.zeros((), jnp.int32))

    def __call__(
        self, x: Float[Array, "seq d_model"], cache: WindowCache | None = None
    ) -> tuple[Float[Array, "seq d_model"], WindowCache]:
        """Attend from every token of a piece.

        Args:
            x: Tokens, at least one.
            cache: The window before them; None for a fresh sequence.

        Returns:
            Outputs, and the window after the last token.
        """
        n_tokens, window = x.shape[0], self.window
        fresh = cache is None
        cache = self.init_state() if cache is None else cache
        queries, keys, values = (
            project(x)
            for project in (self.heads.queries, self.heads.keys, self.heads.values)
        )
        after = WindowCache(
            keys=jnp.concatenate([cache.keys, keys])[-window:],
            values=jnp.concatenate([cache.values, values])[-window:],
            n_cached=jnp.minimum(cache.n_cached + n_tokens, window),
        )
        if fresh and n_tokens <= window:
            # The whole sequence fits in one window: no block before it to look at.
            y = self._attend(queries, keys, values, jnp.zeros((), jnp.int32))
            return self.heads.output(y), after

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
        unwritten = jnp.maximum(window - cache.n_cached - block_starts, 0)
        y = jax.vmap(self._attend)(
            blocks(jnp.pad(queries, padding)),
            with_block_before(keys),
            with_block_before(values),
            unwritten,
        )
        return self.heads.output(y.reshape(-1, *y.shape[2:])[:n_tokens]), after

    def step(
        self, x: Float[Array, " d_model"], cache: WindowCache
    ) -> tuple[Float[Array, " d_model"], WindowCache]:
        """Attend from one token.

        Args:
            x: The token.
            cache: The window before it.

        Returns:
            Its output, and the window that ends with it.
        """
        rows = x[None, :]
        keys = jnp.concatenate([cache.keys[1:], self.heads.keys(rows)])
        values = jnp.concatenate([cache.values[1:], self.heads.values(rows)])
        n_cached = jnp.minimum(cache.n_cached + 1, self.window)
        y = self._attend(self.heads.queries(rows), keys, values, self.window - n_cached)
        return self.heads.output(y)[0], WindowCache(keys, values, n_cached)

    def _attend(
        self,
        queries: Float[Array, "q_seq heads d_head"],
        keys: Float[Array, "kv_seq heads d_head"],
        values: Float[Array, "kv_seq heads d_head"],
        unwritten: Int[Array, ""],
    ) -> Float[Array, "q_seq heads d_head"]:
        """Attention of the last `q_seq` rows; the first `unwritten` are hidden."""
        key_rows = jnp.arange(keys.shape[0], dtype=jnp.int32)
        query_rows = key_rows[keys.shape[0] - queries.shape[0] :]
        distance = query_rows[:, None] - key_rows[None, :]
        is_visible = (distance >= 0) & (distance < self.window)
        is_visible &= (key_rows >= unwritten)[None, :]
        return self.heads.attend(
            queries,
            query_rows,
            heads_first(self.heads.rotate(keys, key_rows)),
            heads_first(values),
            is_visible,
        )
