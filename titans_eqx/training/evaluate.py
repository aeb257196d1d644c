"""Held-out loss during and after training."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float

from titans_eqx.data import Corpus, Tokenizer, compressed_bits_per_byte
from titans_eqx.training.loss import NATS_PER_BIT
from titans_eqx.training.mesh import batch_sharding
from titans_eqx.training.setup import Setup
from titans_eqx.training.step import Rows, TrainState


def mean_loss(
    setup: Setup,
    eval_step: Callable[[TrainState, Rows], Float[Array, " batch"]],
    state: TrainState,
    rows: Sequence[np.ndarray],
) -> float:
    """Mean loss over held-out rows.

    Args:
        setup: The run.
        eval_step: From `build_eval_step`.
        state: The model to evaluate.
        rows: Rows of equal length, at least one.

    Returns:
        Nats per token.
    """
    batch_size = setup.config.train.batch_size
    sharding = batch_sharding(setup.mesh)
    losses: list[np.ndarray] = []
    for first in range(0, len(rows), batch_size):
        real = rows[first : first + batch_size]
        # The last batch is filled up, so that one compiled function serves them all.
        filled = [*real, *[real[-1]] * (batch_size - len(real))]
        batch = jax.make_array_from_callback(
            (batch_size, real[0].size), sharding, np.stack(filled).__getitem__
        )
        losses.append(np.asarray(eval_step(state, batch))[: len(real)])
    return float(np.mean(np.concatenate(losses)))


def bits_per_byte(loss: float, corpus: Corpus) -> float:
    """Loss in bits for each byte of the text that the tokens stand for.

    Args:
        loss: Nats per token.
        corpus: Gives the number of tokens for each byte.

    Returns:
        Bits per byte, comparable between tokenizers and with compressors.
    """
    return loss / NATS_PER_BIT * corpus.n_tokens / corpus.n_bytes


def compressors(tokenizer: Tokenizer, rows: Sequence[np.ndarray]) -> dict[str, float]:
    """What general compressors need for the same text.

    Args:
        tokenizer: Turns rows back into text.
        rows: The rows that were evaluated.

    Returns:
        Bits per byte by the name of the compressor.
    """
    text = tokenizer.decode(np.concatenate([row[1:] for row in rows]))
    return compressed_bits_per_byte([text.encode()])
