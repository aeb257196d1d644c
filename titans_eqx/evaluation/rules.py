"""Update rules side by side: what each reaches with equal tokens, and in equal time.

Every rule is trained on every task, in a model that differs in nothing but
`[model.memory]`. All that is compared is in the metrics that a run writes while it
trains.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from titans_eqx.checkpoint.metrics_log import read_metrics
from titans_eqx.checkpoint.run_folder import METRICS_NAME
from titans_eqx.config import RunConfig, load_config
from titans_eqx.config.section import Section
from titans_eqx.evaluation.comparison import AbstractComparison, Run, label
from titans_eqx.evaluation.plots import Panel, plot_panels
from titans_eqx.evaluation.sizes import model_sizes
from titans_eqx.evaluation.table import Table

RULES: Final = "rules"  # folder of the configs
# A config for each task, and what gives evaluations on the way as many examples as the
# one at the end.
TASKS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "mqar": (
        "rules/tasks/mqar.toml",
        ("train.eval_examples=64", "data.task.eval_examples=64"),
    ),
    "needle": (
        "rules/tasks/needle.toml",
        ("train.eval_examples=64", "data.task.eval_examples=64"),
    ),
    "text": (
        "rules/tasks/text.toml",
        ("train.eval_examples=1024", "train.eval_every=100", "train.sample_every=0"),
    ),
}


def memory_overrides(path: Path) -> tuple[str, ...]:
    """The keys that a config sets in `[model.memory]`, as overrides of another."""

    def walk(section: Section, prefix: str) -> Iterator[str]:
        for key in section.model_fields_set:
            value = getattr(section, key)
            if isinstance(value, Section):
                yield from walk(value, f"{prefix}.{key}")
            else:
                yield f"{prefix}.{key}={json.dumps(value)}"

    return tuple(sorted(walk(load_config(path).model.memory, "model.memory")))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A measurement of a run on its way."""

    seconds: float  # of training before it
    score: float


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """What a run has written about itself."""

    # Of training, without compilation and evaluations; 0 where the metrics of the steps
    # are lost.
    seconds: float
    evaluations: tuple[Evaluation, ...]  # on the way; all read the same examples
    # The score at the end; None if it was not taken. Of a long text it reads other
    # examples, so it is compared with nothing but the ends of other runs.
    final: float | None

    @property
    def evaluated_until(self) -> float:
        """Seconds before the last evaluation on the way; all if there was none."""
        return self.evaluations[-1].seconds if self.evaluations else self.seconds

    def after(self, seconds: float) -> float | None:
        """The last score on the way within a time; None if there was none."""
        scores = [one.score for one in self.evaluations if one.seconds <= seconds]
        return scores[-1] if scores else None


def learning_curve(run: Run) -> LearningCurve:
    """Read the metrics of a run.

    A line with a speed stands for the steps since the one before it. Their time is
    their tokens over that speed, also where the run was interrupted between them.
    """
    key = f"eval_{_measure(run.config).replace(' ', '_')}"
    seconds, step, final = 0.0, 0, None
    evaluations: list[Evaluation] = []
    for record in read_metrics(run.folder / METRICS_NAME):
        if speed := record.get("tokens_per_second"):
            tokens = run.config.n_tokens(record["step"]) - run.config.n_tokens(step)
            seconds, step = seconds + tokens / speed, record["step"]
        if (score := record.get(key)) is None:
            continue
        if "loss" in record:
            evaluations.append(Evaluation(seconds=seconds, score=score))
        elif record["step"] == run.config.train.steps:  # else the end of fewer steps
            final = score
    return LearningCurve(seconds=seconds, evaluations=tuple(evaluations), final=final)


@dataclass(frozen=True)
class RuleComparison(AbstractComparison):
    """By scores on the way and at the end, speed and size."""

    places: Mapping[str, tuple[str, str]]
    """Rule and task of each run, by its name."""

    def is_measured(self, run: Run) -> bool:
        """See `AbstractComparison.is_measured`: with the evaluation at the end."""
        return learning_curve(run).final is not None

    def measure(self, run: Run, *, with_picture: bool) -> None:
        """See `AbstractComparison.measure`: training has done it."""

    def table(self, runs: Sequence[Run]) -> Table:
        """See `AbstractComparison.table`.

        Equal tokens are all that a run reads; equal time is what the fastest rule of
        the task took to its last evaluation on the way.
        """
        curves = {run.label: learning_curve(run) for run in runs}
        times = self._equal_times(runs, curves)
        table: Table = []
        for run in runs:
            (rule, task), curve = self.places[run.name], curves[run.label]
            steps = run.config.train.steps
            table.append(
                {
                    "rule": label(rule, run.seed),
                    "task": task,
                    "score": _measure(run.config),
                    "equal tokens": curve.final,
                    "equal time": curve.after(times.get(task, 0.0)),
                    "seconds": curve.seconds or None,
                    "tokens/s": run.config.n_tokens(steps) / curve.seconds
                    if curve.seconds
                    else None,
                }
                | model_sizes(run.config.model)
            )
        return table

    def summary(self, table: Table) -> Table:
        """See `AbstractComparison.summary`: task by task, as wide as a terminal."""
        tasks = list(TASKS)
        return [
            {key: line[key] for key in line if key not in ("score", "seconds")}
            for line in sorted(table, key=lambda line: tasks.index(line["task"]))
        ]

    def plot(self, runs: Sequence[Run], title: str, path: Path) -> None:
        """See `AbstractComparison.plot`: scores over time, a panel for each task."""
        curves = {run.label: learning_curve(run) for run in runs}
        times = self._equal_times(runs, curves)
        panels: dict[str, Panel] = {}
        for run in runs:
            rule, task = self.places[run.name]
            measure = _measure(run.config)
            panel = panels.setdefault(
                task,
                Panel(
                    title=task,
                    y_label=measure,
                    are_shares=measure == "accuracy",
                    mark=times.get(task),
                ),
            )
            panel.curves[label(rule, run.seed)] = [
                (one.seconds, one.score) for one in curves[run.label].evaluations
            ]
        plot_panels(list(panels.values()), "seconds of training", title, path)

    def _equal_times(
        self, runs: Sequence[Run], curves: Mapping[str, LearningCurve]
    ) -> dict[str, float]:
        """Seconds of the fastest run of each task to its last evaluation on the way."""
        times: dict[str, float] = {}
        for run in runs:
            (_, task), curve = self.places[run.name], curves[run.label]
            if seconds := curve.evaluated_until:
                times[task] = min(seconds, times.get(task, seconds))
        return times


def _measure(config: RunConfig) -> str:
    """What is scored: bits per byte of a text, accuracy on a task."""
    return "accuracy" if config.data.source == "task" else "bits per byte"
