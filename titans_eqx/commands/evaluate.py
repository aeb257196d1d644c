"""Measure a trained model: `titans-evaluate --run runs/mac --task perplexity`."""

from pathlib import Path
from typing import Any, Final

import click

from titans_eqx.checkpoint.model_folder import require_model
from titans_eqx.commands.command import PATH, command
from titans_eqx.commands.loading import loading
from titans_eqx.commands.trained_run import trained_run
from titans_eqx.config.bounds import MAX_BATCH, MAX_LEN
from titans_eqx.errors import UserError

# Options that only some measures have.
SIZES: Final = {"--length", "--examples", "--batch-size"}
EFFECTS: Final = {
    "perplexity": {*SIZES, "--repeat-len", "--window"},
    "prequential": {"--text"},
    "memory-use": {*SIZES, "--reset-every"},
    "accuracy": {*SIZES, "--seed"},
    "memory-layers": {"--length", "--examples"},
    "recall": {*SIZES, "--pairs", "--seed"},
    "needle": {*SIZES, "--depth", "--seed"},
}
ONE_LENGTH: Final = {"perplexity", "memory-use", "memory-layers"}
DEFAULT_EXAMPLES: Final = 64
DEFAULT_BATCH: Final = 8


@command()
@trained_run
@click.option(
    "--task",
    required=True,
    type=click.Choice(list(EFFECTS)),
    help="What to measure.",
)
@click.option(
    "--length",
    "lengths",
    type=click.IntRange(1, MAX_LEN),
    multiple=True,
    help="Tokens in an example; repeatable for accuracy, recall and needle. "
    "[default: data.seq_len of the run]",
)
@click.option(
    "--pairs",
    type=click.IntRange(1, MAX_LEN),
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
    "--repeat-len",
    type=click.IntRange(1, MAX_LEN),
    help="Tokens seen before that make a repeat (perplexity). [default: 4]",
)
@click.option(
    "--window",
    type=click.IntRange(1, MAX_LEN),
    help="Tokens up to which a repeat is near (perplexity). "
    "[default: model.attention.window of the run]",
)
@click.option(
    "--reset-every",
    type=click.IntRange(1, MAX_LEN),
    help="Tokens after which a memory starts anew (memory-use). [default: 256]",
)
@click.option("--text", help="File that is read once (prequential).")
@click.option(
    "--examples",
    type=click.IntRange(1, MAX_BATCH),
    help="How many for each length and number of pairs, or depth. "
    "[default: 64; memory-layers 4]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, MAX_BATCH),
    help="Examples that are read at once. [default: 8]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Decides the examples (accuracy, recall, needle). [default: 0]",
)
@click.option(
    "--out", type=PATH, help="New folder. [default: RUN/evaluation/TASK-at-STEP]"
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
    repeat_len: int | None,
    window: int | None,
    reset_every: int | None,
    text: str | None,
    examples: int | None,
    batch_size: int | None,
    seed: int | None,
    out: Path | None,
    no_picture: bool,
) -> None:
    """Measure a trained model.

    Examples are read as streams, so any length fits; memory-layers reads them whole.
    """
    given = {
        "--length": lengths,
        "--pairs": pairs,
        "--depth": depths,
        "--repeat-len": repeat_len,
        "--window": window,
        "--reset-every": reset_every,
        "--text": text,
        "--examples": examples,
        "--batch-size": batch_size,
        "--seed": seed,
    }
    for name, value in given.items():
        if name not in EFFECTS[task] and value not in (None, ()):
            raise UserError(f"{name} has no effect with --task {task}; leave it out.")
    if task in ONE_LENGTH and len(lengths) > 1:
        raise UserError(
            f"{task} is measured on examples of one length, got "
            f"{len(lengths)} of them; give --length once."
        )
    if task == "prequential" and text is None:
        raise UserError("--task prequential reads a text; name its file with --text.")
    require_model(run_dir)
    with loading(all_cpu_cores=True):
        from titans_eqx.evaluation import (
            AccuracySettings,
            MemoryLayersSettings,
            MemoryUseSettings,
            NeedleSettings,
            PerplexitySettings,
            PrequentialSettings,
            RecallSettings,
            evaluate,
        )
    common: dict[str, Any] = {
        "n_examples": examples or DEFAULT_EXAMPLES,
        "batch_size": batch_size or DEFAULT_BATCH,
    }
    match task:
        case "perplexity":
            settings = PerplexitySettings(
                length=max(lengths, default=None),
                repeat_len=repeat_len or PerplexitySettings.repeat_len,
                window=window,
                **common,
            )
        case "memory-use":
            settings = MemoryUseSettings(
                length=max(lengths, default=None),
                reset_every=reset_every or MemoryUseSettings.reset_every,
                **common,
            )
        case "memory-layers":
            settings = MemoryLayersSettings(
                length=max(lengths, default=None),
                n_examples=examples or MemoryLayersSettings.n_examples,
            )
        case "prequential":
            assert text is not None
            settings = PrequentialSettings(text=text)
        case "accuracy":
            settings = AccuracySettings(lengths=lengths, seed=seed or 0, **common)
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
