"""Loss on the eval text by position, with the memory carried along each example."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from titans_eqx.config import RunConfig
from titans_eqx.data import TextWindows, open_texts, spread
from titans_eqx.errors import UserError
from titans_eqx.evaluation.plots import plot_curves
from titans_eqx.evaluation.scorer import Scorer
from titans_eqx.evaluation.table import Table, doubling_ranges


@dataclass(frozen=True, kw_only=True)
class PerplexitySettings:
    """How perplexity is measured."""

    name: ClassVar[str] = "perplexity"

    length: int | None = None  # tokens in an example; None: data.seq_len of the run
    n_examples: int = 64  # spread evenly over the eval text
    batch_size: int = 8  # examples read at once


def perplexity(
    scorer: Scorer, config: RunConfig, settings: PerplexitySettings
) -> Table:
    """Measure a model on the eval text of its run.

    Returns:
        For each range of positions, then for all: nats per token with standard error
        over examples, bits per byte, perplexity, tokens.

    Raises:
        DataError: If the eval text is too short.
        UserError: If the run was trained on a task.
    """
    data = config.data
    if data.source == "task":
        raise UserError(
            "the run was trained on a task, not on a text; measure recall instead."
        )
    _, text = open_texts(data)
    length = settings.length or data.seq_len
    examples = spread(TextWindows(text, length), settings.n_examples)
    losses = np.stack([scores.loss for scores in scorer(examples)])
    count = len(examples)
    table: Table = []
    for start, stop in [*doubling_ranges(length), (0, length)]:
        by_example = losses[:, start:stop].mean(axis=1)
        nats = float(by_example.mean())
        error = (
            float(by_example.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan
        )
        table.append(
            {
                "from": start,
                "to": stop,
                "nats": nats,
                "standard error": error,
                "bits per byte": text.bits_per_byte(nats),
                "perplexity": math.exp(nats),
                "tokens": count * (stop - start),
            }
        )
    return table


def plot_perplexity(table: Table, title: str, path: Path) -> None:
    """Draw the loss by position."""
    curves = {"model": [(line["to"], line["nats"]) for line in table[:-1]]}
    plot_curves(curves, "position", "nats per token", title, path)
