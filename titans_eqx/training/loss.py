"""The training loss: cross entropy of what should be predicted after each token."""

import math
from typing import Final

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from titans_eqx.data import UNSCORED
from titans_eqx.models import TitansLM

NATS_PER_BIT: Final = math.log(2.0)


class RowScores(eqx.Module):
    """How well each prediction of a batch fits its target."""

    loss: Float[Array, "batch seq"]  # nats, float32 or wider; 0 where unscored
    is_scored: Bool[Array, "batch seq"]
    is_correct: Bool[Array, "batch seq"]  # the likeliest token is the target


def score_rows(model: TitansLM, rows: Int[Array, "batch 2 seq"]) -> RowScores:
    """Score the predictions of a batch; every row starts with a fresh memory.

    Args:
        model: The model.
        rows: Tokens and targets; see `titans_eqx.data.rows`.

    Returns:
        Loss and correctness of each prediction.
    """
    tokens, targets = rows[:, 0], rows[:, 1]
    logits, _ = jax.vmap(lambda tokens: model(tokens))(tokens)
    wide = logits.astype(jnp.float32) if logits.dtype.itemsize < 4 else logits
    is_scored = targets != UNSCORED
    losses = optax.softmax_cross_entropy_with_integer_labels(
        wide, jnp.where(is_scored, targets, 0)
    )
    return RowScores(
        loss=jnp.where(is_scored, losses, 0),
        is_scored=is_scored,
        is_correct=jnp.argmax(wide, axis=-1) == targets,
    )
