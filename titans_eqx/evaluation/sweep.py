"""Several runs, trained and measured one after the other, in one table.

What is finished is not done again, so a sweep that was interrupted goes on with the
same command.
"""

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.errors import CheckpointError
from titans_eqx.checkpoint.metadata import saved_config
from titans_eqx.checkpoint.model_folder import find_checkpoints
from titans_eqx.config import RunConfig
from titans_eqx.errors import UserError
from titans_eqx.evaluation.case import Case, Suite
from titans_eqx.evaluation.comparison import Run
from titans_eqx.evaluation.evaluate import PICTURE
from titans_eqx.evaluation.plots import require_plots
from titans_eqx.evaluation.report import show, write_json
from titans_eqx.files import probe_output, read_regular, write_durably
from titans_eqx.training import train
from titans_eqx.training.divergence import DivergedError

TABLE: Final = "table.json"
SUITE: Final = "suite.txt"  # says whose the folder is
MAX_NAME: Final = 1000  # bytes of it that are read


class _NoStartError(UserError):
    """The run whose weights another one starts with was left out."""


def sweep(
    suite: Suite, out: Path, *, only: Collection[str] = (), with_picture: bool
) -> None:
    """Train and measure runs, and write `table.json` and `picture.png`.

    Args:
        suite: The runs.
        out: Folder with a folder for each run, of this suite alone.
        only: Names of runs and groups to do, with those that they start from; empty for
            all. What earlier sweeps finished of the others is shown too, if it was made
            with the same values.
        with_picture: Whether to draw.

    Raises:
        UserError: If a config, a run or a folder cannot be used.
    """
    if with_picture:
        require_plots()
    for name in (TABLE, PICTURE, SUITE):
        probe_output(out / name, "--out")
    _check_suite(suite, out)
    comparison, title = suite.comparison, f"sweep in {out}"
    # Before the first run: what cannot be used is refused at once, not after hours of
    # training.
    cases = suite.asked_for(only)
    wanted = [_run(case, out) for case in cases]
    for run in wanted:
        comparison.is_measured(run)  # refuses what is of another evaluation
        _check_begun(run)
    for case in cases:
        for override in case.without_effect if case.seed == 0 else ():
            click.echo(f"--set {override} has no effect on {case.name}, which sets it")
    out.mkdir(parents=True, exist_ok=True)
    write_durably(out / SUITE, f"{suite.name}\n".encode())
    measured = _Measured(suite, out, {run.label for run in wanted})
    for run in wanted:
        runs = measured.runs()
        if not comparison.is_measured(run) and not suite.is_worth(run, runs):
            continue
        try:
            _check_start(run, runs)
            if train(run.config, run.folder) < run.config.train.steps:
                return  # interrupted; the run has said so
        except (DivergedError, _NoStartError) as error:
            _leave_out(run.label, error)
            continue
        _check_same(run)
        if not comparison.is_measured(run):
            comparison.measure(run, with_picture=with_picture)
        runs = measured.runs()
        write_json(comparison.table(runs), out / TABLE)
        if with_picture:
            comparison.plot(runs, title, out / PICTURE)
    runs = measured.runs()
    if runs and (lines := comparison.summary(comparison.table(runs))):
        show(lines, title)


class _Measured:
    """The runs in a folder that are measured, by this sweep or another.

    One that nobody asked for and that cannot be shown beside the others is left out,
    not refused: what is set may be a key that its task does not have.
    """

    def __init__(self, suite: Suite, out: Path, wanted: Collection[str]) -> None:
        self._suite = suite
        self._out = out
        self._wanted = wanted  # labels of runs that the sweep comes to itself
        self._runs: dict[str, Run | None] = {}  # None: left out

    def runs(self) -> list[Run]:
        """Those that are measured by now, in the order of the suite.

        A sweep beside this one may have measured some since the last time.
        """
        for case in self._suite.cases:
            if case.label not in self._runs and _folder(case, self._out).exists():
                self._look_at(case)
        runs = (self._runs.get(case.label) for case in self._suite.cases)
        return [run for run in runs if run is not None]

    def _look_at(self, case: Case) -> None:
        try:
            run = _run(case, self._out)
            if not self._suite.comparison.is_measured(run):
                return
            _check_same(run)
        except UserError as error:
            if case.label not in self._wanted:
                _leave_out(case.label, error)
                self._runs[case.label] = None
            return
        self._runs[case.label] = run


def _check_suite(suite: Suite, out: Path) -> None:
    """Refuse the folder of another suite: its table and picture would be replaced."""
    try:
        name = read_regular(out / SUITE, MAX_NAME).decode(errors="replace").strip()
    except FileNotFoundError:
        # New, or of an earlier version, which left no name.
        has_runs = any(_folder(case, out).exists() for case in suite.cases)
        is_free = not any((out / name).exists() for name in (TABLE, PICTURE))
        name = suite.name if has_runs or is_free else "another suite"
    if name != suite.name:
        raise UserError(
            f"{out} holds the {TABLE} or {PICTURE} of {name}, which {suite.name} would "
            "replace; name another --out."
        )


def _run(case: Case, out: Path) -> Run:
    config, folder, after = case.load(), _folder(case, out), None
    if case.after is not None:
        start = replace(case, name=case.after)
        config, after = _starting_from(config, _folder(start, out)), start.label
    return Run(
        name=case.name, seed=case.seed, config=config, folder=folder, after=after
    )


def _starting_from(config: RunConfig, folder: Path | str) -> RunConfig:
    train = config.train.model_copy(update={"init_from": str(folder)})
    return config.model_copy(update={"train": train})


def _check_start(run: Run, runs: Sequence[Run]) -> None:
    """Refuse a run whose start has not been trained to its end."""
    if run.after is not None and all(one.label != run.after for one in runs):
        raise _NoStartError(f"it starts with the weights of {run.after}.")


def _folder(case: Case, out: Path) -> Path:
    return out / case.label.replace(" ", "-")


def _leave_out(name: str, error: UserError) -> None:
    click.echo(f"{name} is left out: {error}")


def _check_begun(run: Run) -> None:
    """Refuse to go on with a run that was trained with other values."""
    # Where nothing can be read training begins, or says what is wrong.
    with contextlib.suppress(CheckpointError):
        _check_same(run)


def _check_same(run: Run) -> None:
    """Refuse to show a run under settings that it was not trained with.

    One that ended before the steps that are asked for may go on.
    """
    step, trained = _saved(run)
    asked = run.config
    if Path(trained.train.init_from).name == Path(asked.train.init_from).name:
        # The folder may have been called by another path.
        trained = _starting_from(trained, asked.train.init_from)
    if step < asked.train.steps:
        train = trained.train.model_copy(update={"steps": asked.train.steps})
        trained = trained.model_copy(update={"train": train})
    for name in ("model", "data", "optimizer", "train"):
        if getattr(asked, name) != getattr(trained, name):
            raise UserError(
                f"{run.folder} was trained with other values in [{name}]; name "
                "another --out, or remove that folder."
            )


def _saved(run: Run) -> tuple[int, RunConfig]:
    """The steps of a run at its last checkpoint, and its config then.

    Raises:
        CheckpointError: If it has none that can be read.
    """
    with Checkpoints(find_checkpoints(run.folder), read_only=True) as checkpoints:
        step, saved = checkpoints.read_metadata()
    return step, saved_config(saved)
