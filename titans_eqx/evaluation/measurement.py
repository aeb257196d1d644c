"""A measurement of the model of a run, from its settings to its files."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from titans_eqx.errors import UserError
from titans_eqx.evaluation import measures, results
from titans_eqx.evaluation.measures import Table
from titans_eqx.evaluation.scoring import StreamScorer
from titans_eqx.training.trained import TrainedModel, load_trained

TEXT_TASKS = ("needle", "who_is_where")  # in bytes


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
    name = f"{settings.name}-at-{trained.step}"
    out = out or run_dir / "evaluation" / name
    if out.exists():
        raise UserError(f"{out} exists; name a new folder with --out.")
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
    if settings.name == "perplexity":
        return measures.perplexity(scorer, config, max(lengths), settings.n_rows)
    if config.data.source != "task" and config.model.vocab_size < 256:
        raise UserError("the model reads no bytes, so it cannot be asked in bytes.")
    if settings.name == "needle":
        needle = (
            task
            if task.name == "needle"
            else task.model_copy(update={"name": "needle"})
        )
        return measures.needle(
            scorer, needle, lengths, settings.depths, settings.n_rows, settings.seed
        )
    if config.data.source != "task" or task.name in TEXT_TASKS:
        raise UserError(
            "recall needs a run that was trained on a task with pairs, got "
            f"data.source = {config.data.source!r} and data.task.name = {task.name!r}."
        )
    pairs = settings.pairs or (task.n_pairs,)
    return measures.recall(scorer, task, lengths, pairs, settings.n_rows, settings.seed)
