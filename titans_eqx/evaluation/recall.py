"""Accuracy on a task of key-value pairs by length, number of pairs and distance."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from titans_eqx.config import RunConfig
from titans_eqx.config.task import PairTask
from titans_eqx.data import build_task
from titans_eqx.data.synthetic import MultiQueryRecall, Task, TaskExamples
from titans_eqx.data.synthetic.mqar import distances
from titans_eqx.errors import UserError
from titans_eqx.evaluation.plots import plot_curves
from titans_eqx.evaluation.scorer import Scorer
from titans_eqx.evaluation.table import Table, accuracy_columns, doubling_ranges

PAIR_TASKS: Final = ("mqar", "in_context_recall", "noisy_recall")


@dataclass(frozen=True, kw_only=True)
class RecallSettings:
    """How recall is measured; an empty tuple stands for the value of the run."""

    name: ClassVar[str] = "recall"

    lengths: tuple[int, ...] = ()  # tokens in an example
    n_pairs: tuple[int, ...] = ()  # key-value pairs in an example
    sizes: tuple[tuple[int, int], ...] = ()  # both, in place of each with each
    n_examples: int = 64  # of each length and number of pairs
    batch_size: int = 8  # examples read at once
    seed: int = 0  # decides the examples


def recall(scorer: Scorer, config: RunConfig, settings: RecallSettings) -> Table:
    """Measure a model on the task of its run.

    Returns:
        For each length and number of pairs a line for all distances (`distance` 0),
        then for MQAR one for each range of distances, named by its upper end.

    Raises:
        DataError: If a number of pairs or a length does not fit the task.
        UserError: If the run was not trained on a task of pairs.
    """
    task = config.data.task
    if config.data.source != "task" or not isinstance(task, PairTask):
        raise UserError(
            f"recall needs a run trained on one of {', '.join(PAIR_TASKS)}; "
            f"this one has data.source = {config.data.source!r} and "
            f"data.task.name = {task.name!r}. Measure accuracy instead."
        )
    table: Table = []
    lengths = settings.lengths or (config.data.seq_len,)
    each = product(lengths, settings.n_pairs or (task.n_pairs,))
    for length, n_pairs in settings.sizes or each:
        counts = _count(scorer, build_task(task, n_pairs=n_pairs), length, settings)
        table.extend(
            {"length": length, "pairs": n_pairs, "distance": stop}
            | accuracy_columns(*count.T)
            for stop, count in sorted(counts.items())
            if count[:, 1].any()
        )
    return table


def plot_recall(table: Table, title: str, path: Path) -> None:
    """Draw the accuracy by length, a curve for each number of pairs.

    Or by the number of pairs, if that alone takes several values.
    """
    whole = [line for line in table if line["distance"] == 0]
    x, other, unit = "length", "pairs", "pairs"
    n_lengths, n_pairs = (len({line[key] for line in whole}) for key in (x, other))
    if n_lengths == 1 and n_pairs > 1:
        x, other, unit = other, x, "tokens"
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in whole:
        curves[f"{line[other]:,} {unit}"].append((line[x], line["accuracy"]))
    plot_curves(curves, x, "accuracy", title, path, are_shares=True)


def _count(
    scorer: Scorer, task: Task, length: int, settings: RecallSettings
) -> dict[int, np.ndarray]:
    """Correct answers and cases, (examples, 2), by the upper end of their distances.

    Those of all distances have the number 0.
    """
    n_examples, seed = settings.n_examples, settings.seed
    examples = list(TaskExamples(task, length, n_examples, seed, "eval"))
    counts: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for example, scores in zip(examples, scorer(examples), strict=True):
        groups = {0: example["mask"]}
        if isinstance(task, MultiQueryRecall):
            distance = distances(example)
            for start, stop in doubling_ranges(length):
                is_inside = (distance >= start) & (distance < stop)
                groups[stop] = example["mask"] & is_inside
        for stop, mask in groups.items():
            counts[stop].append((scores.is_correct[mask].sum(), mask.sum()))
    return {stop: np.array(count) for stop, count in counts.items()}
