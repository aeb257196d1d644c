"""A measurement of the model of a run, from its settings to its files."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from titans_eqx.errors import UserError
from titans_eqx.evaluation import measures, results
from titans_eqx.evaluation.measures import Table
from titans_eqx.evaluation.plots import require_plots
from titans_eqx.evaluation.scoring import StreamScorer
from titans_eqx.checkpoint.load_model import TrainedModel, load_trained

PAIR_TASKS: Final = ("mqar", "in_context_recall", "noisy_recall", "fuzzy_recall")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is measured; empty tuples stand for the values that the run trained with."""

    name: str  # perplexity, recall or needle
    lengths: tuple[int, ...] = ()  # tokens in a row
    pairs: tuple[int, ...] = ()  # of recall
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)  # of needles
    n_rows: int = 64  # of each kind
    batch_size: int = 8  # rows side by side
    seed: int = 0  # decides the rows


def measure(
    run_dir: Path, settings: Measurement, out: Path | None, *, with_picture: bool
) -> Table:
    """Measure the latest model of a run, show and write the results.

    Args:
        run_dir: Folder of the run.
        settings: What to measure.
        out: New folder for the results; None for one in the run's folder.
        with_picture: Whether to draw.

    Returns:
        The table.

    Raises:
        UserError: If the run, a setting or the folder cannot be used.
    """
    trained = load_trained(run_dir)
    out = out or run_dir / "evaluation" / f"{settings.name}-at-{trained.step}"
    if (out / results.RESULTS).exists():
        raise UserError(f"{out} holds results; name a new folder with --out.")
    if with_picture:
        require_plots()
    table = _table(trained, settings)
    results.show(table, f"{settings.name} of {run_dir} at step {trained.step}")
    meta = {
        "measure": settings.name,
        "run": str(run_dir),
        "step": trained.step,
        "settings": dataclasses.asdict(settings),
    }
    results.write(table, meta, out, with_picture=with_picture)
    return table


def _table(trained: TrainedModel, settings: Measurement) -> Table:
    config, task = trained.config, trained.config.data.task
    lengths = settings.lengths or (config.data.seq_len,)
    scorer = StreamScorer(trained.model, settings.batch_size)
    n_rows, seed = settings.n_rows, settings.seed
    match settings.name:
        case "perplexity":
            if len(lengths) > 1:
                raise UserError(
                    "perplexity is measured by position up to one length, got "
                    f"{len(lengths)} of them; give --length once."
                )
            return measures.perplexity(scorer, config, max(lengths), n_rows)
        case "needle":
            if not trained.reads_bytes:
                raise UserError(
                    "needles are hidden in bytes, and the model of this run does not "
                    "read bytes."
                )
            hidden = task.model_copy(update={"name": "needle"})
            return measures.needle(
                scorer, hidden, lengths, settings.depths, n_rows, seed
            )
        case _:
            if config.data.source != "task" or task.name not in PAIR_TASKS:
                raise UserError(
                    f"recall needs a run trained on one of {', '.join(PAIR_TASKS)}; "
                    f"this one has data.source = {config.data.source!r} and "
                    f"data.task.name = {task.name!r}."
                )
            pairs = settings.pairs or (task.n_pairs,)
            table = measures.recall(scorer, task, lengths, pairs, n_rows, seed)
            if not table:
                raise UserError("no row asks for anything; raise --length or --rows.")
            return table
