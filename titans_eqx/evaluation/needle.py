"""Share of needles found in a haystack, by length and depth."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import ClassVar

import click
import numpy as np

from titans_eqx.config import NeedleConfig, RunConfig
from titans_eqx.data import build_task
from titans_eqx.data.synthetic import TaskExamples
from titans_eqx.evaluation.plots import plot_grid
from titans_eqx.evaluation.scorer import Scorer
from titans_eqx.evaluation.table import Table, accuracy_columns


@dataclass(frozen=True, kw_only=True)
class NeedleSettings:
    """How finding needles is measured."""

    name: ClassVar[str] = "needle"

    lengths: tuple[int, ...] = ()  # bytes in an example; (): data.seq_len of the run
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)  # 0 = first, 1 = last
    n_examples: int = 64  # of each length and depth
    batch_size: int = 8  # examples read at once
    seed: int = 0  # decides the examples


def needle(scorer: Scorer, config: RunConfig, settings: NeedleSettings) -> Table:
    """Hide needles and ask for them; the model must read bytes.

    The needles are those of data.task, or passkeys if the run had another task.
    A needle is found if every byte of the answer is the likeliest after the ones before
    it, which is what greedy generation would write. Each depth has needles of its own,
    so that all answers of a length are independent; the lengths share them. Each line
    is printed as soon as it is measured: with long examples all of them take hours.

    Returns:
        A line for each length and depth.

    Raises:
        DataError: If a length is too short for the needle.
    """
    trained_on = config.data.task
    section = trained_on if isinstance(trained_on, NeedleConfig) else NeedleConfig()
    table: Table = []
    lengths = settings.lengths or (config.data.seq_len,)
    n_examples, seed = settings.n_examples, settings.seed
    n_all = n_examples * len(settings.depths)
    for length, (i, depth) in product(lengths, enumerate(settings.depths)):
        task = build_task(section, **section.eval_changes, depth=depth)
        drawn = TaskExamples(task, length, n_all, seed, "eval")
        examples = [drawn[i * n_examples + j] for j in range(n_examples)]
        is_found = np.array(
            [
                np.all(scores.is_correct[example["mask"]])
                for example, scores in zip(examples, scorer(examples), strict=True)
            ]
        )
        columns = accuracy_columns(is_found, np.ones(n_examples))
        table.append({"length": length, "depth": depth} | columns)
        found = f"{is_found.sum()} of {n_examples} found"
        click.echo(f"length {length:,}, depth {depth:g}: {found}")
    return table


def plot_needle(table: Table, title: str, path: Path) -> None:
    """Draw the share found over length and depth."""
    cells = {(line["length"], line["depth"]): line["accuracy"] for line in table}
    plot_grid(cells, "length", "depth", title, path)
