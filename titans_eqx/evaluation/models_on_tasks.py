"""Models on tasks: the accuracy of each over its seeds, beside what it weighs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from titans_eqx.evaluation.comparison import AbstractEvaluationComparison, Run
from titans_eqx.evaluation.plots import Panel, plot_panels
from titans_eqx.evaluation.sizes import model_sizes
from titans_eqx.evaluation.table import (
    Table,
    accuracy_over_seeds,
    pooled_columns,
)

SIZE: Final = ("length", "pairs")  # columns of an evaluation that are kept
Columns: TypeAlias = Mapping[str, str | int | float]
"""What a run is, such as its model, its task, its learning rate."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Which columns make the panels, curves and horizontal axis of a picture."""

    panels: tuple[str, ...]
    curves: tuple[str, ...]
    x: str
    min_length: int = 0  # shorter examples are not drawn
    mark: int | None = None  # place on the horizontal axis, drawn as a line


@dataclass(frozen=True, kw_only=True)
class AccuracyComparison(AbstractEvaluationComparison):
    """Means over seeds; of a grid of settings the best is kept."""

    columns: Mapping[str, Columns]  # of each run, by its name
    picture: Picture
    grid: tuple[str, ...] = ()  # columns of which one combination is kept
    published: Sequence[Columns] = ()
    """What others report, each beside the lines that agree in all they share."""

    def is_best(self, run: Run, measured: Sequence[Run]) -> bool:
        """Whether none of its grid did better with the first seed.

        None is the best where all of them diverged with that seed.
        """
        rivals = self._rivals(run, measured)
        return bool(rivals) and run.name == max(rivals, key=self._mean).name

    def table(self, runs: Sequence[Run]) -> Table:
        """See `AbstractComparison.table`: a line for each run and size of example.

        The first seed, which chose the best of several settings, is no part of the mean
        over seeds where there are others: its accuracy is that of the luckiest of many,
        and theirs are not.
        """
        table: Table = []
        for name in dict.fromkeys(run.name for run in runs):
            seeds = [run for run in runs if run.name == name]
            is_kept = {"kept": self.is_best(seeds[0], runs)} if self.grid else {}
            if len(self._rivals(seeds[0], runs)) > 1:
                seeds = [run for run in seeds if run.seed != 0] or seeds
            for lines in zip(*map(self._lines, seeds), strict=True):
                size = {key: lines[0][key] for key in SIZE if key in lines[0]}
                line = (
                    dict(self.columns[name])
                    | size
                    | is_kept
                    | accuracy_over_seeds(lines)
                    | model_sizes(seeds[0].config.model, lines[0]["length"])
                )
                table.append(line | self._published(line))
        return table

    def summary(self, table: Table) -> Table:
        """See `AbstractComparison.summary`: what is kept, as wide as a terminal."""
        hidden = {"kept", "low", "high", "over", "cases", "independent"}
        hidden |= {"parameters", *self.grid}
        if self.grid:
            hidden |= {"length", "seeds", "state bytes"}
        lines: Table = []
        for line in table:
            if line.get("kept", True):
                shown = {key: line[key] for key in line if key not in hidden}
                shown["95 % low high"] = f"{line['low']:.3f} {line['high']:.3f}"
                if self.grid:
                    kept = (f"{line[key]:g}" for key in self.grid)
                    shown["model"] = " ".join([line["model"], *kept])
                # So that rich may put the words of a long name below each other.
                lines.append(
                    {
                        key: value.replace("_", " ") if key == "task" else value
                        for key, value in shown.items()
                    }
                )
        return lines

    def plot(self, runs: Sequence[Run], title: str, path: Path) -> None:
        """See `AbstractComparison.plot`."""
        picture = self.picture
        panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for line in self.table(runs):
            if line["length"] >= picture.min_length:
                curves = panels.setdefault(_label(line, picture.panels), {})
                curve = curves.setdefault(_label(line, picture.curves), [])
                curve.append((line[picture.x], line["accuracy"]))
        drawn = [
            Panel(
                title=name,
                y_label="accuracy",
                are_shares=True,
                mark=picture.mark,
                curves={label: sorted(points) for label, points in curves.items()},
            )
            for name, curves in panels.items()
        ]
        plot_panels(drawn, picture.x, title, path, is_log=True)

    def _published(self, line: Columns) -> dict[str, Any]:
        beside = {key: None for one in self.published for key in one if key not in line}
        for one in self.published:
            if all(line[key] == one[key] for key in one if key in line):
                beside |= {key: one[key] for key in one if key in beside}
        return beside

    def _rivals(self, run: Run, measured: Sequence[Run]) -> list[Run]:
        """All settings of its grid, itself too, with the first seed."""
        return [
            one
            for one in measured
            if one.seed == 0 and self._group(one) == self._group(run)
        ]

    def _group(self, run: Run) -> Columns:
        columns = self.columns[run.name]
        return {key: columns[key] for key in columns if key not in self.grid}

    def _mean(self, run: Run) -> float:
        accuracies = [line["accuracy"] for line in self._lines(run)]
        return sum(accuracies) / len(accuracies)

    def _lines(self, run: Run) -> Table:
        """Those of the evaluation by size, all distances and depths together."""
        by_size: dict[tuple[tuple[str, int], ...], Table] = {}
        for line in self.report(run):
            if line.get("distance", 0) == 0:
                size = tuple((key, line[key]) for key in SIZE if key in line)
                by_size.setdefault(size, []).append(line)
        return [dict(size) | pooled_columns(lines) for size, lines in by_size.items()]


def _label(line: Mapping[str, Any], columns: Sequence[str]) -> str:
    """The values of columns; numbers with their names."""
    values = ((column, line[column]) for column in columns)
    return ", ".join(
        value if isinstance(value, str) else f"{column} {value:,}"
        for column, value in values
    )
