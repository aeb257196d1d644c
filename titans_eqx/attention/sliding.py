"""Sliding-window attention with a persistent prefix (MAG, MAL, baseline).

Token `i` sees the persistent tokens and the last `window` tokens, itself included. A
sequence is cut into blocks of one window; a block looks at itself and the block before,
so time and memory grow linearly with length. A window as long as the sequence is full
attention.

Keys are cached without their rotation and turned when they are used, by their place in
the window. Scores depend only on differences of positions, so a stream needs no
absolute position and loses no precision however long it runs.

By option queries, keys and values pass through the short causal convolutions that those
of the memory have, so that a model without memory can have them too; without SiLU,
which softmax attention does not need.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Float, Int, PRNGKeyArray

from titans_eqx.attention.heads import HEADS_FIRST, AttentionHeads
from titans_eqx.nn.conv import CausalConv
from titans_eqx.nn.documents import Documents
from titans_eqx.nn.linear import linear_rows
from titans_eqx.nn.padding import Padding
from titans_eqx.nn.rope import rotate

Projected = tuple[Float[Array, "seq heads d_head"], ...]


class WindowCache(eqx.Module):
    """Keys (not rotated) and values of the last `window` tokens, oldest first."""

    keys: Float[Array, "window heads d_head"]
    values: Float[Array, "window heads d_head"]
    n_cached: Int[Array, ""]  # how many of the last rows are real
    conv_states: tuple[Float[Array, "conv_state_len d_model"], ...]  # of q, k and v


class SlidingAttention(eqx.Module):
    """Causal attention over [persistent | the last `window` tokens]."""

    heads: AttentionHeads
    convs: tuple[CausalConv, ...]  # of queries, keys and values; none at kernel size 1

    window: int = eqx.field(static=True)

    def __init__(
        self,
        heads: AttentionHeads,
        *,
        window: int,
        kernel_size: int = 1,
        key_delay: int = 0,
        key: PRNGKeyArray,
    ) -> None:
        """Add windows, and convolutions if wanted, to heads.

        Args:
            heads: Projections and persistent tokens.
            window: Tokens that a token sees, itself included.
            kernel_size: Tokens that the convolutions see; 1 = no convolutions.
            key_delay: Tokens back at which the convolution of the keys starts. With 1
                a value is found by the token before it, as induction wants it.
            key: Random key of the convolutions.

        Raises:
            ValueError: If the keys would start outside their convolution.
        """
        if key_delay >= kernel_size:
            raise ValueError(
                f"key_delay must be less than kernel_size, got key_delay={key_delay} "
                f"with kernel_size={kernel_size}."
            )
        self.heads = heads
        delays = zip((0, key_delay, 0), jr.split(key, 3), strict=True)
        convs = (
            CausalConv(heads.d_model, kernel_size, delay=delay, key=k)
            for delay, k in delays
        )
        self.convs = tuple(convs) if kernel_size > 1 else ()
        self.window = window

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
        (queries, keys, values), conv_states = self._project(x, cache, documents)
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
        (queries, key, value), conv_states = self._project(x[None, :], cache)
        after = WindowCache(
            keys=jnp.concatenate([cache.keys[1:], key]),
            values=jnp.concatenate([cache.values[1:], value]),
            n_cached=jnp.minimum(cache.n_cached + 1, self.window),
            conv_states=conv_states,
        )
        n_hidden = self.window - after.n_cached
        return self._attend(queries, after.keys, after.values, n_hidden)[0], after

    def _project(
        self,
        x: Float[Array, "seq d_model"],
        cache: WindowCache,
        documents: Documents | None = None,
    ) -> tuple[Projected, tuple[Float[Array, "conv_state_len d_model"], ...]]:
        """Queries, keys and values of each head, and the states of the convolutions."""
        heads = self.heads
        projected = [
            linear_rows(projection, x)
            for projection in (
                heads.query_projection,
                heads.key_projection,
                heads.value_projection,
            )
        ]
        conv_states = []
        if self.convs:
            padding = Padding.none(x.shape[0])
            for i, conv in enumerate(self.convs):
                projected[i], conv_state = conv(
                    projected[i], cache.conv_states[i], padding, documents
                )
                conv_states.append(conv_state)
        return tuple(heads.split(rows) for rows in projected), tuple(conv_states)

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
