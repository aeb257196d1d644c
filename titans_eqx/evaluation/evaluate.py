"""An evaluation of the model of a run, from its settings to its files."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import click

from titans_eqx.checkpoint.load_model import LoadedModel, load_model, warn_of_damage
from titans_eqx.errors import UserError
from titans_eqx.evaluation.accuracy import (
    AccuracySettings,
    accuracy,
    plot_accuracy,
)
from titans_eqx.evaluation.memory_layers import (
    MemoryLayersSettings,
    memory_layers,
    plot_memory_layers,
)
from titans_eqx.evaluation.memory_use import (
    MemoryUseSettings,
    memory_use,
    plot_memory_use,
)
from titans_eqx.evaluation.needle import NeedleSettings, needle, plot_needle
from titans_eqx.evaluation.perplexity import (
    PerplexitySettings,
    perplexity,
    plot_perplexity,
)
from titans_eqx.evaluation.plots import require_plots
from titans_eqx.evaluation.prequential import (
    PrequentialSettings,
    plot_prequential,
    prequential,
)
from titans_eqx.evaluation.recall import RecallSettings, plot_recall, recall
from titans_eqx.evaluation.report import REPORT, show, write_json
from titans_eqx.evaluation.scorer import Scorer, StreamScorer, show_progress
from titans_eqx.evaluation.table import Table
from titans_eqx.files import probe_output
from titans_eqx.models import TitansLM
from titans_eqx.terminal import phase

PICTURE: Final = "picture.png"
Settings: TypeAlias = (
    PerplexitySettings
    | PrequentialSettings
    | MemoryUseSettings
    | AccuracySettings
    | MemoryLayersSettings
    | RecallSettings
    | NeedleSettings
)


def evaluate(
    run_dir: Path,
    settings: Settings,
    out: Path | None,
    *,
    step: int | None = None,
    average: bool = True,
    with_picture: bool,
) -> Table:
    """Measure a model of a run, show and write the table.

    Args:
        run_dir: Folder of the run.
        settings: Their type decides what is measured.
        out: New folder for the results; None for one in the run's folder.
        step: Of which checkpoint; None for the latest that is undamaged.
        average: Whether to take the average of the weights; see `load_model`.
        with_picture: Whether to draw.

    Raises:
        UserError: If the run, a setting or the folder cannot be used.
    """
    if with_picture:
        require_plots()
    if out is not None:
        _probe(out, (REPORT, PICTURE))
    with phase("loading the model"):
        loaded = load_model(run_dir, step=step, average=average)
    warn_of_damage(loaded)
    if out is None:
        out = evaluation_dir(run_dir, settings, loaded.step)
        _probe(out, (REPORT,))  # a picture alone is what was interrupted here
    table, plot = _measure(loaded, settings)
    title = f"{settings.name} of {run_dir} at step {loaded.step}"
    show(table, title)
    report = {
        "measure": settings.name,
        "run": str(run_dir),
        "step": loaded.step,
        "average": loaded.is_average,
        "settings": dataclasses.asdict(settings),
        "table": table,
    }
    if with_picture:
        plot(table, title, out / PICTURE)
    _probe(out, (REPORT,))  # another command may have come first meanwhile
    # Last: where it is, the evaluation is complete.
    write_json(report, out / REPORT)
    click.echo(f"saved in {out}")
    return table


def evaluation_dir(run_dir: Path, settings: Settings, step: int) -> Path:
    """Where the results of a run are written by default."""
    return run_dir / "evaluation" / f"{settings.name}-at-{step}"


def _probe(out: Path, names: Sequence[str]) -> None:
    """Find out before any work whether the results can be written.

    Args:
        out: Where to.
        names: Of files that must not be replaced.
    """
    if any(os.path.lexists(out / name) for name in names):
        raise UserError(f"{out} holds results; name a new folder with --out.")
    for name in (REPORT, PICTURE):
        probe_output(out / name, "--out")


def _measure(
    loaded: LoadedModel, settings: Settings
) -> tuple[Table, Callable[[Table, str, Path], None]]:
    """The table, and the function that draws it."""
    if isinstance(settings, MemoryLayersSettings):
        table = memory_layers(loaded.model, loaded.config, settings)
        return table, plot_memory_layers

    def scorer_of(model: TitansLM, forget_every: int) -> Scorer:
        batch_size = settings.batch_size
        return show_progress(StreamScorer(model, batch_size, forget_every=forget_every))

    if isinstance(settings, MemoryUseSettings):
        table = memory_use(scorer_of, loaded.model, loaded.config, settings)
        return table, plot_memory_use
    scorer = scorer_of(loaded.model, 0)
    match settings:
        case PerplexitySettings():
            return perplexity(scorer, loaded.config, settings), plot_perplexity
        case PrequentialSettings():
            if not loaded.reads_text:
                raise UserError(
                    "the run was trained on a task whose tokens stand for no text; "
                    "measure accuracy instead."
                )
            return prequential(scorer, loaded.tokenizer, settings), plot_prequential
        case AccuracySettings():
            return accuracy(scorer, loaded.config, settings), plot_accuracy
        case RecallSettings():
            return recall(scorer, loaded.config, settings), plot_recall
        case NeedleSettings():
            if not loaded.reads_bytes:
                raise UserError(
                    "needles are hidden in bytes, and the model of this run does not "
                    "read bytes."
                )
            return needle(scorer, loaded.config, settings), plot_needle
