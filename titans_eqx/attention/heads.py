"""What both kinds of attention share: heads, persistent tokens, positions, softmax.

By option queries, keys and values of tokens pass through the short causal convolutions
that those of the memory have, so that a model without memory can have them too; without
SiLU, which softmax attention does not need.
"""

import functools
import itertools
from typing import Final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from titans_eqx.nn.conv import CausalConv
from titans_eqx.nn.documents import Documents
from titans_eqx.nn.linear import linear_rows
from titans_eqx.nn.padding import Padding
from titans_eqx.nn.precision import at_least_float32
from titans_eqx.nn.rope import rotate

HEADS_FIRST: Final = "seq heads d -> heads seq d"
"""To the layout of keys and values in products, one matrix for each head."""

Projected = tuple[Float[Array, "seq heads d_head"], ...]
ConvStates = tuple[Float[Array, "conv_state_len d_model"], ...]
ScoredValues = tuple[
    Float[Array, "heads q_seq kv_seq"],  # scores
    Float[Array, "heads kv_seq d_head"],  # values
]


def attention_convs(
    d_model: int, kernel_size: int = 1, key_delay: int = 0, *, key: PRNGKeyArray
) -> tuple[CausalConv, ...]:
    """The convolutions of queries, keys and values.

    Args:
        d_model: Width of the stream.
        kernel_size: Tokens that they see; 1 = no convolutions.
        key_delay: Tokens back at which that of the keys starts. With 1 a value is found
            by the token before it, as induction wants it.
        key: Random key.

    Raises:
        ValueError: If the keys would start outside their convolution.
    """
    if key_delay >= kernel_size:
        raise ValueError(
            f"key_delay must be less than kernel_size, got key_delay={key_delay} "
            f"with kernel_size={kernel_size}."
        )
    delays = zip((0, key_delay, 0), jr.split(key, 3), strict=True)
    convs = (CausalConv(d_model, kernel_size, delay=d, key=k) for d, k in delays)
    return tuple(convs) if kernel_size > 1 else ()


class AttentionHeads(eqx.Module):
    """Query, key, value and output projections, with learned persistent tokens.

    Persistent tokens are part of every attention context, depend on no input, and carry
    no position (Titans, Eq. 19).
    """

    query_projection: eqx.nn.Linear
    key_projection: eqx.nn.Linear
    value_projection: eqx.nn.Linear
    output_projection: eqx.nn.Linear
    persistent_tokens: Float[Array, "n_persistent d_model"]

    d_model: int = eqx.field(static=True)
    n_heads: int = eqx.field(static=True)
    rope_base: float = eqx.field(static=True)

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int,
        n_persistent: int = 0,
        rope_base: float = 10_000.0,
        key: PRNGKeyArray,
    ) -> None:
        """Build the projections.

        Args:
            d_model: Width of the stream; `n_heads` divides it into even widths.
            n_heads: Attention heads, at least 1.
            n_persistent: Persistent tokens.
            rope_base: Wavelength base of the rotary positions.
            key: Random key.

        Raises:
            ValueError: If the width cannot be divided so.
        """
        if n_heads < 1 or d_model % n_heads != 0 or d_model // n_heads % 2 != 0:
            raise ValueError(
                "attention.n_heads must divide d_model into even widths (rotary "
                f"positions turn pairs), got n_heads={n_heads} and d_model={d_model}."
            )
        keys = jr.split(key, 5)
        self.query_projection, self.key_projection = (
            eqx.nn.Linear(d_model, d_model, use_bias=False, key=k) for k in keys[:2]
        )
        self.value_projection, self.output_projection = (
            eqx.nn.Linear(d_model, d_model, use_bias=False, key=k) for k in keys[2:4]
        )
        self.persistent_tokens = jr.normal(keys[4], (n_persistent, d_model))
        self.d_model = d_model
        self.n_heads = n_heads
        self.rope_base = rope_base

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads

    def split(self, x: Float[Array, "seq d_model"]) -> Float[Array, "seq heads d_head"]:
        """Features of each head."""
        return rearrange(x, "seq (heads d) -> seq heads d", heads=self.n_heads)

    def project(
        self,
        x: Float[Array, "seq d_model"],
        convs: tuple[CausalConv, ...],
        conv_states: ConvStates,
        padding: Padding,
        documents: Documents | None = None,
    ) -> tuple[Projected, ConvStates]:
        """Queries, keys and values of tokens, and what the convolutions saw last.

        Args:
            x: Tokens.
            convs: Of queries, keys and values, or none.
            conv_states: The inputs of each convolution before the first real token.
            padding: Which of the tokens are real.
            documents: Where documents start, of which none sees another.
        """
        rows = [
            linear_rows(projection, x)
            for projection in (
                self.query_projection,
                self.key_projection,
                self.value_projection,
            )
        ]
        after = []
        for i, (conv, conv_state) in enumerate(zip(convs, conv_states, strict=True)):
            rows[i], conv_state = conv(rows[i], conv_state, padding, documents)
            after.append(conv_state)
        return tuple(self.split(one) for one in rows), tuple(after)

    def scores(
        self,
        queries: Float[Array, "q_seq heads d_head"],
        positions: Int[Array, " q_seq"],
        keys: Float[Array, "heads kv_seq d_head"],
        is_visible: Bool[Array, "q_seq kv_seq"],
    ) -> Float[Array, "heads q_seq kv_seq"]:
        """Products of queries and keys, not yet scaled; -inf where they may not look.

        Args:
            queries: Queries, not rotated.
            positions: Their positions.
            keys: Keys, already rotated.
            is_visible: Which keys a query may look at.
        """
        rotated = rotate(queries, positions, base=self.rope_base)
        scores = jnp.einsum("qhd,hkd->hqk", rotated, keys)
        return jnp.where(is_visible[None, :, :], scores, -jnp.inf)

    def attend(
        self,
        queries: Float[Array, "q_seq heads d_head"],
        *groups: ScoredValues,
    ) -> Float[Array, "q_seq d_model"]:
        """Softmax attention over [persistent tokens | groups], projected to the stream.

        Scores of persistent tokens, which a query always sees, use no rotation on
        either side, so they are the same wherever in a segment or window it stands.

        Args:
            queries: Queries, not rotated.
            groups: Of each the scores (see `scores`) and the values. Each has a product
                of its own, or a decoded token would copy all of them side by side.

        Returns:
            What attention adds to the stream; softmax in float32 or wider.
        """
        prefix_keys, prefix_values = (
            rearrange(
                self.split(linear_rows(projection, self.persistent_tokens)),
                HEADS_FIRST,
            )
            for projection in (self.key_projection, self.value_projection)
        )
        prefix_scores = jnp.einsum("qhd,hkd->hqk", queries, prefix_keys)
        groups = ((prefix_scores, prefix_values), *groups)
        all_scores, all_values = zip(*groups, strict=True)
        scores = jnp.concatenate(all_scores, axis=-1) * self.d_head**-0.5
        weights = jax.nn.softmax(at_least_float32(scores), axis=-1)
        weights = weights.astype(prefix_values.dtype)
        ends = list(itertools.accumulate(values.shape[1] for values in all_values))
        parts = zip(jnp.split(weights, ends[:-1], axis=-1), all_values, strict=True)
        products = [jnp.einsum("hqk,hkd->qhd", part, values) for part, values in parts]
        y = functools.reduce(jnp.add, products)
        joined = rearrange(y, "seq heads d -> seq (heads d)")
        return linear_rows(self.output_projection, joined)
