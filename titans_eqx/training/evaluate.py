"""Held-out scores during and after training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from titans_eqx.sharding.mesh import batch_sharding
from titans_eqx.training.context import Setup
from titans_eqx.training.step import Rows, RowSums, TrainState


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Means over the scored tokens of some rows."""

    loss: float  # nats per token
    accuracy: float  # share of tokens that were the likeliest
    n_scored: int


def evaluate(
    setup: Setup,
    eval_step: Callable[[TrainState, Rows], RowSums],
    state: TrainState,
    rows: Sequence[np.ndarray],
) -> Scores:
    """Score held-out rows.

    Args:
        setup: The run.
        eval_step: From `build_eval_step`.
        state: The model to evaluate.
        rows: Rows of equal length, at least one.

    Returns:
        Loss and accuracy.
    """
    batch_size = setup.config.train.batch_size
    sharding = batch_sharding(setup.mesh)
    sums: list[tuple[np.ndarray, ...]] = []
    for first in range(0, len(rows), batch_size):
        real = rows[first : first + batch_size]
        # The last batch is filled up, so that one compiled function serves them all.
        filled = np.stack([*real, *[real[-1]] * (batch_size - len(real))])
        batch = jax.make_array_from_callback(filled.shape, sharding, filled.__getitem__)
        leaves = jax.tree.leaves(eval_step(state, batch))
        sums.append(tuple(np.asarray(leaf)[: len(real)] for leaf in leaves))
    loss, n_scored, n_correct = (
        float(np.sum(np.concatenate(column))) for column in zip(*sums, strict=True)
    )
    n_scored = max(n_scored, 1)
    return Scores(
        loss=loss / n_scored, accuracy=n_correct / n_scored, n_scored=int(n_scored)
    )
