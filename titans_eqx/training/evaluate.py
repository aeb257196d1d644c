"""Scores on data that is not trained on, during and after training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from titans_eqx.data.example import Example
from titans_eqx.sharding.mesh import batch_sharding
from titans_eqx.sharding.processes import on_host
from titans_eqx.training.context import TrainContext
from titans_eqx.training.loss import Batch
from titans_eqx.training.state import TrainState
from titans_eqx.training.step import SequenceSums


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Means over the scored tokens of some examples."""

    loss: float  # nats per token
    accuracy: float  # share of tokens that were the likeliest
    n_scored: int


def evaluate(
    context: TrainContext,
    eval_step: Callable[[TrainState, Batch], SequenceSums],
    state: TrainState,
    examples: Sequence[Example],
) -> Scores:
    """Score examples of equal length, at least one.

    Args:
        context: The run.
        eval_step: From `build_eval_step`.
        state: The model to evaluate.
        examples: With `inputs`, `targets` and `mask`.
    """
    batch_size = context.config.train.batch_size
    sharding = batch_sharding(context.mesh)
    sums: list[SequenceSums] = []
    for first in range(0, len(examples), batch_size):
        real = examples[first : first + batch_size]
        # The last batch is filled up, so that one compiled function serves them all.
        filled = [*real, *[real[-1]] * (batch_size - len(real))]
        arrays = jax.tree.map(lambda *xs: np.stack(xs), *filled)
        batch = jax.tree.map(
            lambda x: jax.make_array_from_callback(x.shape, sharding, x.__getitem__),
            arrays,
        )
        n_real, scored = len(real), on_host(eval_step(state, batch))
        sums.append(jax.tree.map(lambda x, n=n_real: x[:n].sum(), scored))
    total = jax.tree.map(lambda *xs: float(np.sum(xs)), *sums)
    n_scored = max(total.n_scored, 1)
    return Scores(
        loss=total.loss / n_scored,
        accuracy=total.n_correct / n_scored,
        n_scored=int(total.n_scored),
    )
