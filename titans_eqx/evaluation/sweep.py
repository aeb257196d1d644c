"""Several runs, trained and measured one after the other, in one table.

What is finished is not done again, so a sweep that was interrupted goes on with the
same command.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from titans_eqx.config import RunConfig, load_config
from titans_eqx.errors import UserError
from titans_eqx.evaluation import results
from titans_eqx.evaluation.measurement import Measurement, measure
from titans_eqx.evaluation.plots import plot_curves, require_plots
from titans_eqx.checkpoint.durable import write_durably
from titans_eqx.training import train
from titans_eqx.training.loop import DivergedError
from titans_eqx.checkpoint.load_model import TrainedModel, load_trained

VARIANTS: Final = ("mac", "mag", "mal", "lmm", "transformer")
RECALL: Final = Measurement(name="recall", lengths=(256, 1024, 4096), n_rows=32)
NEEDLE: Final = Measurement(
    name="needle", lengths=(1024, 2048, 4096, 8192, 16384), n_rows=20
)
# The rows of the paper's ablation (table 5), then this package's own choices.
ABLATIONS: Final = {
    "as configured": (),
    "memory off": ("model.memory.max_step=0",),
    "linear memory": ("model.memory.depth=1",),
    "linear memory without norm": ("model.memory.depth=1", "model.memory.norm=false"),
    "no convolution": ("model.memory.conv_taps=1",),
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
    measurement: Measurement


def suite(name: str, configs: Path, overrides: Sequence[str] = ()) -> list[Case]:
    """The runs of a suite.

    Args:
        name: recall, needle or ablation.
        configs: Folder of the configs.
        overrides: Keys to set in all runs, as in `load_config`.

    Returns:
        The runs, in order.
    """
    if name == "ablation":
        return [
            Case(
                name=title,
                config=configs / "recall" / "mac.toml",
                # Last, or a key set for all runs would undo what a run is named for.
                overrides=(*overrides, *changes),
                measurement=RECALL,
            )
            for title, changes in ABLATIONS.items()
        ]
    return [
        Case(
            name=variant,
            config=configs / name / f"{variant}.toml",
            overrides=tuple(overrides),
            measurement=RECALL if name == "recall" else NEEDLE,
        )
        for variant in VARIANTS
    ]


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
    table: results.Table = []
    for case in cases:
        config = load_config(case.config, case.overrides)
        run_dir = out / case.name.replace(" ", "-")
        evaluated = (
            run_dir / "evaluation" / f"{case.measurement.name}-at-{config.train.steps}"
        )
        is_measured = (evaluated / results.RESULTS).exists()
        if only and case.name not in only and not is_measured:
            continue
        try:
            train(config, run_dir)
        except DivergedError as error:
            click.echo(f"{case.name} is left out: {error}")
            continue
        trained = load_trained(run_dir)
        if trained.step < config.train.steps:
            return  # interrupted; the run has said so
        _check_same(config, trained, run_dir)
        if not is_measured:
            measure(run_dir, case.measurement, evaluated, with_picture=with_picture)
        text = (evaluated / results.RESULTS).read_text(encoding="utf-8")
        rows = json.loads(text)["table"]
        table.extend({"run": case.name} | row for row in rows)
        _write(table, out, with_picture)
    whole = [row for row in table if row.get("distance", 0) == 0]
    if whole:
        results.show(whole, f"sweep in {out}")


def _check_same(config: RunConfig, trained: TrainedModel, run_dir: Path) -> None:
    """Refuse to show a finished run under settings that it was not trained with."""
    for name in ("model", "data", "optimizer", "train"):
        if getattr(config, name) != getattr(trained.config, name):
            raise UserError(
                f"{run_dir} was finished with other values in [{name}]; name another "
                "--out, or remove that folder."
            )


def _write(table: results.Table, out: Path, with_picture: bool) -> None:
    try:
        text = json.dumps(table, indent=1) + "\n"
        write_durably(out / "table.json", text.encode())
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}.") from error
    if not with_picture:
        return
    curves: dict[str, dict[float, list[float]]] = {}
    for row in table:
        if row.get("distance", 0) == 0:
            by_length = curves.setdefault(str(row["run"]), {})
            by_length.setdefault(float(row["length"]), []).append(
                float(row["accuracy"])
            )
    means = {
        name: [(length, sum(values) / len(values)) for length, values in points.items()]
        for name, points in curves.items()
    }
    plot_curves(means, "length", "accuracy", out / "picture.png")
