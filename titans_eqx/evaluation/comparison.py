"""What a sweep measures of its runs, and how it sets them side by side."""

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from titans_eqx.checkpoint.metadata import differences
from titans_eqx.config import RunConfig
from titans_eqx.errors import UserError
from titans_eqx.evaluation.evaluate import Settings, evaluate, evaluation_dir
from titans_eqx.evaluation.plots import plot_curves
from titans_eqx.evaluation.report import REPORT, read_report
from titans_eqx.evaluation.table import Table
from titans_eqx.files import to_json


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run of a sweep."""

    name: str  # the same for all seeds
    config: RunConfig
    folder: Path
    seed: int = 0  # how many above that of the config
    after: str | None = None  # label of the run whose weights it starts with

    @property
    def label(self) -> str:
        """Its name and its seed."""
        return label(self.name, self.seed)


def label(name: str, seed: int) -> str:
    """A name that no other seed has; that of the first is the plain name."""
    return f"{name} seed {seed}" if seed else name


class AbstractComparison(ABC):
    """From finished runs to one table and one picture."""

    @abstractmethod
    def is_measured(self, run: Run) -> bool:
        """Whether an earlier sweep has finished this one.

        Raises:
            UserError: If the results in its folder are of something else.
        """

    @abstractmethod
    def measure(self, run: Run, *, with_picture: bool) -> None:
        """Measure a trained run and write the results into its folder."""

    @abstractmethod
    def table(self, runs: Sequence[Run]) -> Table:
        """The lines of measured runs."""

    @abstractmethod
    def summary(self, table: Table) -> Table:
        """The lines to print."""

    @abstractmethod
    def plot(self, runs: Sequence[Run], title: str, path: Path) -> None:
        """Draw measured runs."""


@dataclass(frozen=True, kw_only=True)
class AbstractEvaluationComparison(AbstractComparison):
    """By an evaluation of accuracy after training."""

    settings: Settings  # of the evaluation

    def is_measured(self, run: Run) -> bool:
        """See `AbstractComparison.is_measured`.

        Raises:
            UserError: As `report`.
        """
        if not (self._dir(run) / REPORT).exists():
            return False
        self.report(run)
        return True

    def measure(self, run: Run, *, with_picture: bool) -> None:
        """See `AbstractComparison.measure`."""
        steps = run.config.train.steps
        # No `out`: a picture alone is there if this was interrupted before.
        evaluate(run.folder, self.settings, None, step=steps, with_picture=with_picture)

    def report(self, run: Run) -> Table:
        """The lines of the evaluation of a run.

        Raises:
            UserError: If there is something else, or it is of an earlier version or of
                another evaluation.
        """
        path = self._dir(run) / REPORT
        report = read_report(path)
        if any("independent" not in line for line in report.table):
            raise UserError(
                f"{path} is of an earlier version, whose intervals took all answers of "
                "an example for independent; remove it to measure again."
            )
        asked = json.loads(to_json(dataclasses.asdict(self.settings)))
        changes = differences(report.settings, asked)
        if report.average is not None:
            reads_average = run.config.train.ema_decay > 0
            changes += differences(report.average, reads_average, "average")
        if changes:
            raise UserError(
                f"{path} is of another evaluation: {'; '.join(changes)}; remove it to "
                "measure again."
            )
        return report.table

    def _dir(self, run: Run) -> Path:
        return evaluation_dir(run.folder, self.settings, run.config.train.steps)


class EvaluationComparison(AbstractEvaluationComparison):
    """Evaluations below each other."""

    def table(self, runs: Sequence[Run]) -> Table:
        """See `AbstractComparison.table`: those of the evaluations."""
        return [{"run": run.label} | line for run in runs for line in self.report(run)]

    def summary(self, table: Table) -> Table:
        """See `AbstractComparison.summary`: all distances together."""
        return [line for line in table if line.get("distance", 0) == 0]

    def plot(self, runs: Sequence[Run], title: str, path: Path) -> None:
        """See `AbstractComparison.plot`: the mean accuracy of each run by length."""
        accuracies: dict[str, dict[int, list[float]]] = {}
        for line in self.summary(self.table(runs)):
            by_length = accuracies.setdefault(line["run"], {})
            by_length.setdefault(line["length"], []).append(line["accuracy"])
        means = {
            name: [(length, sum(all_) / len(all_)) for length, all_ in points.items()]
            for name, points in accuracies.items()
        }
        plot_curves(means, "length", "accuracy", title, path, are_shares=True)
