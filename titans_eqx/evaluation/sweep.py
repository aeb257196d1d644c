"""Several runs, trained and measured one after the other, in one table.

What is finished is not done again, so a sweep that was interrupted goes on with the
same command.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Final

import click

from titans_eqx.checkpoint.load_model import load_model
from titans_eqx.config import RunConfig
from titans_eqx.errors import UserError
from titans_eqx.evaluation.case import Suite
from titans_eqx.evaluation.comparison import Run
from titans_eqx.evaluation.evaluate import PICTURE
from titans_eqx.evaluation.plots import require_plots
from titans_eqx.evaluation.report import show, write_json
from titans_eqx.files import probe_output
from titans_eqx.training import train
from titans_eqx.training.divergence import DivergedError

TABLE: Final = "table.json"


def sweep(
    suite: Suite, out: Path, *, only: Collection[str] = (), with_picture: bool
) -> None:
    """Train and measure runs, and write `table.json` and `picture.png`.

    Args:
        suite: The runs.
        out: Folder with a folder for each run.
        only: Names of runs and groups to do; empty for all. What earlier sweeps
            finished of the others is shown too.
        with_picture: Whether to draw.

    Raises:
        UserError: If a config, a run or a folder cannot be used.
    """
    if with_picture:
        require_plots()
    for name in (TABLE, PICTURE):
        probe_output(out / name, "--out")
    comparison, title = suite.comparison, f"sweep in {out}"
    runs: list[Run] = []
    # Before the first run: a config that cannot be used is refused at once, not after
    # hours of training.
    wanted = {one.label: one.load() for one in suite.cases if one.is_in(only)}
    for case in suite.cases:
        folder = out / case.label.replace(" ", "-")
        config = wanted.get(case.label)
        # The others are loaded if they are there, perhaps from a sweep beside this one;
        # what is set may be a key that the others' tasks do not have.
        if config is None and folder.exists():
            config = case.load()
        if config is None:
            continue
        run = Run(name=case.name, seed=case.seed, config=config, folder=folder)
        is_measured = comparison.is_measured(run)
        if not is_measured and not (case.label in wanted and suite.is_worth(run, runs)):
            continue
        try:
            if train(config, folder) < config.train.steps:
                return  # interrupted; the run has said so
        except DivergedError as error:
            click.echo(f"{case.label} is left out: {error}")
            continue
        _check_same(config, load_model(folder).config, folder)
        if not is_measured:
            comparison.measure(run, with_picture=with_picture)
        runs.append(run)
        write_json(comparison.table(runs), out / TABLE)
        if with_picture:
            comparison.plot(runs, title, out / PICTURE)
    if runs:
        show(comparison.summary(comparison.table(runs)), title)


def _check_same(config: RunConfig, trained: RunConfig, run_dir: Path) -> None:
    """Refuse to show a finished run under settings that it was not trained with."""
    for name in ("model", "data", "optimizer", "train"):
        if getattr(config, name) != getattr(trained, name):
            raise UserError(
                f"{run_dir} was finished with other values in [{name}]; name another "
                "--out, or remove that folder."
            )
