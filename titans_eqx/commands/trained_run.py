"""The options that name the model a command reads."""

from collections.abc import Callable

import click

from titans_eqx.commands.command import PATH


def trained_run(body: Callable[..., None]) -> Callable[..., None]:
    """Add `--run` (parameter `run_dir`), `--step` and `--average` to a command."""
    average = click.option(
        "--average/--no-average",
        default=True,
        help="Read the average of the weights, if the run has one (train.ema_decay).",
    )
    step = click.option(
        "--step",
        type=click.IntRange(min=0),
        help="Step of the checkpoint to read. [default: the latest undamaged]",
    )
    run = click.option(
        "--run",
        "run_dir",
        required=True,
        type=PATH,
        help="Folder of the run, or of an exported model.",
    )
    return run(step(average(body)))
