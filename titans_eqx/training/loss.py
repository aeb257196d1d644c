"""The loss of a language model: cross entropy of the token that should come next."""

from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from titans_eqx.models import TitansLM
from titans_eqx.nn.precision import at_least_float32

Batch: TypeAlias = dict[str, Array]
"""Arrays by name, each with a leading batch axis; a language model needs `inputs`,
`targets` and `mask` (see `titans_eqx.data.dataset`)."""


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


def batch_loss(model: TitansLM, batch: Batch) -> TokenLoss:
    """Score the predictions of a batch; every sequence starts with a fresh memory."""
    logits, _ = jax.vmap(lambda tokens: model(tokens))(batch["inputs"])
    return token_loss(logits, batch["targets"], batch["mask"])


def language_model_loss(
    model: TitansLM, batch: Batch
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Sum of the losses of a batch in nats, and the number of tokens scored."""
    loss = jnp.sum(batch_loss(model, batch).loss)
    return loss, jnp.sum(batch["mask"], dtype=jnp.int32)
