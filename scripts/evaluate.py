"""Measure a trained model: `scripts/evaluate.py --run runs/mac --task perplexity`."""

import logging
import sys
from pathlib import Path

import click

from titans_eqx.errors import UserError
from titans_eqx.evaluation import Measurement, measure
from titans_eqx.training import keep_compiled_programs, use_all_cpu_cores


@click.command()
@click.option("--run", "run_dir", required=True, type=Path, help="Folder of the run.")
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
    help="Tokens in a row; repeatable. [default: data.seq_len of the run]",
)
@click.option(
    "--pairs",
    type=click.IntRange(min=1),
    multiple=True,
    help="Pairs in a row (recall); repeatable. [default: data.task.n_pairs]",
)
@click.option(
    "--depth",
    "depths",
    type=click.FloatRange(0, 1),
    multiple=True,
    default=(0.0, 0.25, 0.5, 0.75, 1.0),
    show_default=True,
    help="Where the needle lies (needle); repeatable.",
)
@click.option(
    "--rows", default=64, show_default=True, type=click.IntRange(min=1), help="Of each."
)
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option(
    "--out", type=Path, help="New folder. [default: RUN/evaluation/TASK-at-STEP]"
)
@click.option("--no-picture", is_flag=True, help="Write figures only.")
def main(
    run_dir: Path,
    task: str,
    lengths: tuple[int, ...],
    pairs: tuple[int, ...],
    depths: tuple[float, ...],
    rows: int,
    batch_size: int,
    seed: int,
    out: Path | None,
    no_picture: bool,
) -> None:
    """Measure a trained model; rows are read as streams, so any length fits."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells of its defaults
    try:
        use_all_cpu_cores()
        keep_compiled_programs()
        measure(
            run_dir,
            Measurement(
                name=task,
                lengths=lengths,
                pairs=pairs,
                depths=depths,
                n_rows=rows,
                batch_size=batch_size,
                seed=seed,
            ),
            out,
            with_picture=not no_picture,
        )
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
