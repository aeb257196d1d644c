"""Loss on the eval text by position and by what repeats.

The memory is carried along each example.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from titans_eqx.config import RunConfig
from titans_eqx.evaluation.held_out import held_out_examples
from titans_eqx.evaluation.plots import plot_curves
from titans_eqx.evaluation.repeats import ALL, contexts_of_rows
from titans_eqx.evaluation.scorer import Scorer
from titans_eqx.evaluation.table import Table, doubling_ranges, ratio_per_row


@dataclass(frozen=True, kw_only=True)
class PerplexitySettings:
    """How perplexity is measured."""

    name: ClassVar[str] = "perplexity"

    length: int | None = None  # tokens in an example; None: data.seq_len of the run
    repeat_len: int = 4  # tokens seen before that make a repeat
    window: int | None = None  # tokens to a near one; None: attention.window of the run
    n_examples: int = 64  # spread evenly over the eval text
    batch_size: int = 8  # examples read at once


def perplexity(
    scorer: Scorer, config: RunConfig, settings: PerplexitySettings
) -> Table:
    """Measure a model on the eval text of its run.

    Returns:
        For each range of positions, for each kind of repeat, then for all: nats per
        token with standard error over examples, bits per byte, perplexity, tokens. What
        a token is predicted from decides its kind: the last tokens, as many as make a
        repeat, were seen before in the example, near or far (`repeats.py`).

    Raises:
        DataError: If the eval text is too short.
        UserError: If the run was trained on a task.
    """
    text = held_out_examples(config.data, settings.length, settings.n_examples)
    window = settings.window or config.model.attention.window
    losses = np.stack([scores.loss for scores in scorer(text.examples)])
    counted = contexts_of_rows(text.inputs, settings.repeat_len, window)
    length = losses.shape[1]

    def line(context: str, start: int, stop: int) -> dict[str, Any]:
        own = (losses, counted[context], text.n_bytes)
        return {"context": context, "from": start, "to": stop} | _scores(
            *(rows[:, start:stop] for rows in own)
        )

    return [
        *(line(ALL, start, stop) for start, stop in doubling_ranges(length)),
        *(line(kind, 0, length) for kind in counted if kind != ALL),
        line(ALL, 0, length),
    ]


def _scores(
    losses: np.ndarray, counted: np.ndarray, n_bytes: np.ndarray
) -> dict[str, float | int | None]:
    """Means over the counted tokens, and over their bytes; of none at all, None."""
    n_counted_bytes = int(n_bytes[counted].sum())
    sums = np.where(counted, losses, 0).sum(axis=1)
    counts = counted.sum(axis=1)
    n_tokens, n_examples = int(counts.sum()), len(counts)
    nats = error = bits = perplexity = None
    if n_tokens > 0:
        by_example = ratio_per_row(sums, counts)
        nats, error = float(sums.sum() / n_tokens), math.nan
        if n_examples > 1:
            error = float(by_example.std(ddof=1) / math.sqrt(n_examples))
        try:
            perplexity = math.exp(nats)
        except OverflowError:  # above 709 nats
            perplexity = math.inf
    if n_counted_bytes > 0:
        bits = float(sums.sum() / math.log(2) / n_counted_bytes)
    return {
        "nats": nats,
        "standard error": error,
        "bits per byte": bits,
        "perplexity": perplexity,
        "tokens": n_tokens,
    }


def plot_perplexity(table: Table, title: str, path: Path) -> None:
    """Draw the loss by position."""
    by_position = [line for line in table[:-1] if line["context"] == ALL]
    curves = {"model": [(line["to"], line["nats"]) for line in by_position]}
    plot_curves(curves, "position", "nats per token", title, path)
