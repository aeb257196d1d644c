"""Measure a trained model: `titans-evaluate --run runs/mac --task perplexity`."""

from pathlib import Path
from typing import Any, Final

import click

from titans_eqx.checkpoint.model_folder import require_model
from titans_eqx.commands.command import command
from titans_eqx.commands.loading import loading
from titans_eqx.commands.trained_run import trained_run
from titans_eqx.errors import UserError

WITHOUT_EFFECT: Final = {
    "perplexity": ("--pairs", "--depth", "--seed"),
    "recall": ("--depth",),
    "needle": ("--pairs",),
}


@command()
@trained_run
@click.option(
    "--task",
    required=True,
    type=click.Choice(["perplexity", "recall", "needle"]),
    help="What to measure.",
)
@click.option(
    "--length",
    "lengths",
    type=click.IntRange(min=1),
    multiple=True,
    help="Tokens in an example; repeatable, but for perplexity. "
    "[default: data.seq_len of the run]",
)
@click.option(
    "--pairs",
    type=click.IntRange(min=1),
    multiple=True,
    help="Pairs in an example (recall); repeatable. [default: data.task.n_pairs]",
)
@click.option(
    "--depth",
    "depths",
    type=click.FloatRange(0, 1),
    multiple=True,
    help="Where the needle lies (needle); repeatable. [default: 0, 1/4, 1/2, 3/4, 1]",
)
@click.option(
    "--examples",
    default=64,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many for each length and number of pairs, or depth.",
)
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Decides the examples (recall, needle). [default: 0]",
)
@click.option(
    "--out", type=Path, help="New folder. [default: RUN/evaluation/TASK-at-STEP]"
)
@click.option("--no-picture", is_flag=True, help="Write numbers only.")
def main(
    run_dir: Path,
    step: int | None,
    average: bool,
    task: str,
    lengths: tuple[int, ...],
    pairs: tuple[int, ...],
    depths: tuple[float, ...],
    examples: int,
    batch_size: int,
    seed: int | None,
    out: Path | None,
    no_picture: bool,
) -> None:
    """Measure a trained model; examples are read as streams, so any length fits."""
    given = {"--pairs": pairs, "--depth": depths, "--seed": seed}
    for name in WITHOUT_EFFECT[task]:
        if given[name] not in (None, ()):
            raise UserError(f"{name} has no effect with --task {task}; leave it out.")
    if task == "perplexity" and len(lengths) > 1:
        raise UserError(
            "perplexity is measured by position up to one length, got "
            f"{len(lengths)} of them; give --length once."
        )
    require_model(run_dir)
    with loading(all_cpu_cores=True):
        from titans_eqx.evaluation import (
            NeedleSettings,
            PerplexitySettings,
            RecallSettings,
            evaluate,
        )
    common: dict[str, Any] = {"n_examples": examples, "batch_size": batch_size}
    match task:
        case "perplexity":
            settings = PerplexitySettings(length=max(lengths, default=None), **common)
        case "recall":
            settings = RecallSettings(
                lengths=lengths, n_pairs=pairs, seed=seed or 0, **common
            )
        case _:
            depths = depths or NeedleSettings.depths
            settings = NeedleSettings(
                lengths=lengths, depths=depths, seed=seed or 0, **common
            )
    evaluate(
        run_dir,
        settings,
        out,
        step=step,
        average=average,
        with_picture=not no_picture,
    )
