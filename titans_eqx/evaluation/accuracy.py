"""Share of right answers on any task, by length."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from titans_eqx.config import RunConfig
from titans_eqx.data import build_task
from titans_eqx.data.synthetic import TaskExamples
from titans_eqx.errors import UserError
from titans_eqx.evaluation.plots import plot_curves
from titans_eqx.evaluation.scorer import Scorer
from titans_eqx.evaluation.table import Table, accuracy_columns


@dataclass(frozen=True, kw_only=True)
class AccuracySettings:
    """How accuracy is measured."""

    name: ClassVar[str] = "accuracy"

    lengths: tuple[int, ...] = ()  # tokens in an example; (): data.seq_len of the run
    n_examples: int = 64  # of each length
    batch_size: int = 8  # examples read at once
    seed: int = 0  # decides the examples


def accuracy(scorer: Scorer, config: RunConfig, settings: AccuracySettings) -> Table:
    """Measure a model on the task of its run.

    Returns:
        A line for each length; all answers count alike.

    Raises:
        DataError: If a length does not fit the task.
        UserError: If the run was trained on a text.
    """
    if config.data.source != "task":
        raise UserError(
            "accuracy needs a run trained on a task; this one has data.source = "
            f"{config.data.source!r}. Measure perplexity instead."
        )
    section = config.data.task
    task = build_task(section, **section.eval_changes)
    table: Table = []
    for length in settings.lengths or (config.data.seq_len,):
        count, seed = settings.n_examples, settings.seed
        examples = list(TaskExamples(task, length, count, seed, "eval"))
        n_correct = np.array([one.is_correct.sum() for one in scorer(examples)])
        n_cases = np.array([example["mask"].sum() for example in examples])
        table.append({"length": length} | accuracy_columns(n_correct, n_cases))
    return table


def plot_accuracy(table: Table, title: str, path: Path) -> None:
    """Draw the accuracy by length."""
    curves = {"model": [(line["length"], line["accuracy"]) for line in table]}
    plot_curves(curves, "length", "accuracy", title, path, are_shares=True)
