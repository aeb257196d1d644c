"""The loss of a language model: cross entropy of the token that should come next."""

from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int

from titans_eqx.models import TitansLM
from titans_eqx.nn.precision import at_least_float32
from titans_eqx.nn.vmap import vmap
from titans_eqx.sharding.varying import vary_like
from titans_eqx.training.precision import in_mixed_precision

Precision: TypeAlias = Literal["float32", "mixed"]
Batch: TypeAlias = dict[str, Array]
"""Arrays by name, each with a leading batch axis; a language model needs `inputs`,
`targets` and `mask` (see `titans_eqx.data.example`), and `document_starts` if its rows
are several sequences each."""


class TokenLoss(eqx.Module):
    """How well each prediction fits its target."""

    loss: Float[Array, "*tokens"]  # nats, float32 or wider; 0 outside the mask
    is_correct: Bool[Array, "*tokens"]  # the likeliest token is the target


def token_loss(
    logits: Float[Array, "*tokens vocab"],
    targets: Int[Array, "*tokens"],
    mask: Bool[Array, "*tokens"],
) -> TokenLoss:
    """Cross entropy and correctness of predictions; False in the mask: not scored."""
    losses = optax.softmax_cross_entropy_with_integer_labels(
        at_least_float32(logits), targets
    )
    likeliest = jnp.argmax(logits, axis=-1).astype(targets.dtype)
    return TokenLoss(
        loss=jnp.where(mask, losses, 0), is_correct=(likeliest == targets) & mask
    )


def batch_loss(
    model: TitansLM,
    batch: Batch,
    *,
    block_len: int = 0,
    precision: Precision = "float32",
) -> TokenLoss:
    """Score the predictions of a batch; every sequence starts with a fresh memory.

    Args:
        model: The model.
        batch: What it reads.
        block_len: Tokens whose logits exist at a time, in the backward pass too, which
            computes them again: with a large vocabulary they are most of what a step
            needs of memory. Blocks are of the scored tokens first, and others are left
            out. 0 = all tokens at once.
        precision: Of the model, or "mixed", see `in_mixed_precision`.
    """
    if precision == "mixed":
        model = in_mixed_precision(model)

    def read(row: Batch) -> Float[Array, "seq d_model"]:
        starts = row.get("document_starts")
        return model.features(row["inputs"], document_starts=starts)[0]

    return score_tokens(model, vmap(read)(batch), batch, block_len=block_len)


def score_tokens(
    model: TitansLM,
    features: Float[Array, "batch seq d_model"],
    batch: Batch,
    *,
    block_len: int,
) -> TokenLoss:
    """Score the predictions that are made of features; see `batch_loss`."""
    targets, mask = batch["targets"], batch["mask"]

    def score(rows: tuple[Array, Array, Array]) -> TokenLoss:
        features, targets, mask = rows
        return token_loss(model.logits(features), targets, mask)

    if block_len == 0:
        return vmap(lambda *rows: score(rows))(features, targets, mask)
    n_tokens = targets.size
    block_len = min(block_len, n_tokens)
    n_added = -n_tokens % block_len  # to the last block, not scored
    # Tokens that are scored come first, so that most blocks of a task that asks little
    # have none, and no logits are made of them.
    order = jnp.argsort(~mask.ravel(), stable=True)
    arrays = eqx.filter(model, eqx.is_array)

    def fold(x: Array) -> Array:
        x = rearrange(x, "batch seq ... -> (batch seq) ...")[order]
        x = jnp.pad(x, [(0, n_added), *[(0, 0)] * (x.ndim - 1)])
        return rearrange(x, "(n block) ... -> n block ...", block=block_len)

    def score_block(rows: tuple[Array, Array, Array]) -> TokenLoss:
        shapes = jax.eval_shape(score, rows)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.cond(
            jnp.any(rows[2]),
            lambda rows: vary_like(score(rows), (rows, arrays)),
            lambda rows: vary_like(nothing, (rows, arrays)),
            rows,
        )

    blocks = jax.tree.map(fold, (features, targets, mask))
    scores = jax.lax.map(jax.checkpoint(score_block), blocks)
    places = jnp.argsort(order)
    return jax.tree.map(lambda x: x.ravel()[places].reshape(targets.shape), scores)


def language_model_loss(
    model: TitansLM,
    batch: Batch,
    *,
    block_len: int = 0,
    precision: Precision = "float32",
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Sum of the losses of a batch in nats, and the number of tokens scored.

    See `batch_loss` for the arguments.
    """
    scores = batch_loss(model, batch, block_len=block_len, precision=precision)
    return jnp.sum(scores.loss), jnp.sum(batch["mask"], dtype=jnp.int32)
