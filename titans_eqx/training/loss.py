"""The training loss: next-token cross entropy."""

import math
from typing import Final

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from titans_eqx.models import TitansLM

NATS_PER_BIT: Final = math.log(2.0)


def row_losses(
    model: TitansLM, rows: Int[Array, "batch seq_plus_one"]
) -> Float[Array, "batch seq"]:
    """Cross entropy of each prediction; every row is a sequence with a fresh memory.

    Args:
        model: The model.
        rows: Token ids; token `i + 1` of a row is what token `i` should predict.

    Returns:
        Loss in nats per token, float32 or wider.
    """
    logits, _ = jax.vmap(lambda tokens: model(tokens))(rows[:, :-1])
    wide = logits.astype(jnp.float32) if logits.dtype.itemsize < 4 else logits
    return optax.softmax_cross_entropy_with_integer_labels(wide, rows[:, 1:])
