"""Several runs, trained and measured one after the other, in one table.

What is finished is not done again, so a sweep that was interrupted goes on with the
same command.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from titans_eqx.checkpoint.load_model import load_model
from titans_eqx.config import RunConfig, load_config
from titans_eqx.errors import UserError
from titans_eqx.evaluation.evaluate import (
    PICTURE,
    Settings,
    evaluate,
    evaluation_dir,
)
from titans_eqx.evaluation.needle import NeedleSettings
from titans_eqx.evaluation.plots import plot_curves, require_plots
from titans_eqx.evaluation.recall import RecallSettings
from titans_eqx.evaluation.report import REPORT, read_table, show, write_json
from titans_eqx.evaluation.table import Table
from titans_eqx.files import probe_output
from titans_eqx.training import train
from titans_eqx.training.divergence import DivergedError

TABLE: Final = "table.json"
PATTERNS: Final = ("mac", "mag", "mal", "lmm", "transformer")
RECALL: Final = RecallSettings(lengths=(256, 1024, 4096), n_examples=32)
NEEDLE: Final = NeedleSettings(lengths=(1024, 2048, 4096, 8192, 16384), n_examples=20)
# The rows of the paper's ablation (table 5), then this package's own choices.
ABLATIONS: Final = {
    "as configured": (),
    "memory off": ("model.memory.off=true",),
    "linear memory": ("model.memory.depth=1",),
    "linear memory without norm": ("model.memory.depth=1", "model.memory.norm=false"),
    "delta rule": (
        "model.memory.rule=delta",
        "model.memory.depth=1",
        "model.memory.norm=false",
    ),
    "no convolution": ("model.memory.kernel_size=1",),
    "no momentum": ("model.memory.use_momentum=false",),
    "no decay": ("model.memory.decay=none",),
    "decay starts at 1e-4": ("model.memory.decay_start=1e-4",),
    "no persistent tokens": ("model.attention.n_persistent=0",),
    "full outer gradient": ("model.memory.surprise=full",),
    "learned initial memory": ("model.memory.initial_memory=learned",),
    "decay towards initial": ("model.memory.decay_towards=initial",),
    "gate mix": ("model.gate=mix",),
    "gate multiply": ("model.gate=multiply",),
    "no clipping": ("model.memory.clip=0",),
    "chunk 8": ("model.memory.chunk_len=8",),
    "chunk 32": ("model.memory.chunk_len=32",),
    "channel-wise decay": ("model.memory.decay=channel",),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run of a sweep."""

    name: str
    config: Path
    overrides: tuple[str, ...]
    settings: Settings


def suite(name: str, configs: Path, overrides: Sequence[str] = ()) -> list[Case]:
    """The runs of a suite, in order.

    Args:
        name: recall, needle or ablation.
        configs: Folder of the configs.
        overrides: Keys to set in all runs, as in `load_config`.
    """
    match name:
        case "ablation":
            return [
                Case(
                    name=title,
                    config=configs / "recall" / "mac.toml",
                    # Last, or a key set for all runs could undo what a run is about.
                    overrides=(*overrides, *changes),
                    settings=RECALL,
                )
                for title, changes in ABLATIONS.items()
            ]
        case "recall" | "needle":
            return [
                Case(
                    name=pattern,
                    config=configs / name / f"{pattern}.toml",
                    overrides=tuple(overrides),
                    settings=RECALL if name == "recall" else NEEDLE,
                )
                for pattern in PATTERNS
            ]
        case _:
            raise UserError(f"no suite {name!r}; there are recall, needle, ablation.")


def sweep(
    cases: Sequence[Case], out: Path, *, only: Collection[str] = (), with_picture: bool
) -> None:
    """Train and measure runs, and write `table.json` and `picture.png`.

    Args:
        cases: The runs.
        out: Folder with a folder for each run.
        only: Names of the runs to do; empty for all. What earlier sweeps finished of
            the others is shown too.
        with_picture: Whether to draw.

    Raises:
        UserError: If a config, a run or a folder cannot be used.
    """
    if with_picture:
        require_plots()
    for name in (TABLE, PICTURE):
        probe_output(out / name, "--out")
    table: Table = []
    for case in cases:
        config = load_config(case.config, case.overrides)
        run_dir = out / case.name.replace(" ", "-")
        evaluated = evaluation_dir(run_dir, case.settings, config.train.steps)
        is_measured = (evaluated / REPORT).exists()
        if only and case.name not in only and not is_measured:
            continue
        try:
            if train(config, run_dir) < config.train.steps:
                return  # interrupted; the run has said so
        except DivergedError as error:
            click.echo(f"{case.name} is left out: {error}")
            continue
        loaded = load_model(run_dir)
        _check_same(config, loaded.config, run_dir)
        if not is_measured:
            evaluate(run_dir, case.settings, evaluated, with_picture=with_picture)
        lines = read_table(evaluated / REPORT)
        table.extend({"run": case.name} | line for line in lines)
        write_json(table, out / TABLE)
        if with_picture:
            _plot(table, out)
    whole = [line for line in table if line.get("distance", 0) == 0]
    if whole:
        show(whole, f"sweep in {out}")


def _check_same(config: RunConfig, trained: RunConfig, run_dir: Path) -> None:
    """Refuse to show a finished run under settings that it was not trained with."""
    for name in ("model", "data", "optimizer", "train"):
        if getattr(config, name) != getattr(trained, name):
            raise UserError(
                f"{run_dir} was finished with other values in [{name}]; name another "
                "--out, or remove that folder."
            )


def _plot(table: Table, out: Path) -> None:
    """Draw the mean accuracy of each run by length."""
    accuracies: dict[str, dict[int, list[float]]] = {}
    for line in table:
        if line.get("distance", 0) == 0:
            by_length = accuracies.setdefault(line["run"], {})
            by_length.setdefault(line["length"], []).append(line["accuracy"])
    means = {
        name: [(length, sum(values) / len(values)) for length, values in points.items()]
        for name, points in accuracies.items()
    }
    title, picture = f"sweep in {out}", out / PICTURE
    plot_curves(means, "length", "accuracy", title, picture, are_shares=True)
