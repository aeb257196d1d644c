"""Measure speed and memory: `python scripts/bench.py train`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from scripts.benchmark import suites
from scripts.benchmark.comparison import GROUPS, Peers, compare
from scripts.benchmark.options import Options
from scripts.benchmark.report import Report
from scripts.benchmark.roofline import roofline
from titans_eqx.errors import UserError

FILE_WIDTH = 120  # of a table that is not shown on a terminal
SHARED = (
    click.option("--d-model", type=int, help="Width. [default: 256]"),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set one key, as in --set model.memory.depth=1; may be repeated.",
    ),
    click.option("--repeats", default=5, show_default=True, help="Timed runs of each."),
    click.option(
        "--json",
        "json_path",
        type=click.Path(allow_dash=True),
        help="File for the results as JSON; - prints JSON in place of the table.",
    ),
)


def shared(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that all have."""
    for option in reversed(SHARED):
        command = option(command)
    return command


def lengths(*default: int, name: str = "length") -> Callable[..., Any]:
    """The option for lengths of sequences."""
    return click.option(
        f"--{name}",
        f"{name.replace('-', '_')}s",
        type=int,
        multiple=True,
        default=default,
        show_default=True,
        help="Tokens in a sequence; may be repeated.",
    )


@click.group()
def main() -> None:
    """Measure speed and memory; each case in a process of its own.

    The time is the median of several runs, compilation excluded. The setting is that of
    titans_eqx/benchmark/setting.toml; --d-model and --set change it, and the options of
    a command win over --set.
    """


@main.command()
@lengths(2048, 8192)
@click.option("--batch", default=2, show_default=True, help="Sequences.")
@shared
def memory(lengths: tuple[int, ...], batch: int, **others: Any) -> None:
    """One memory layer: forward, and forward with its gradient."""
    _show(lambda options: suites.memory(options, lengths, batch), **others)


@main.command()
@lengths(512, 2048)
@click.option("--batch", default=4, show_default=True, help="Sequences.")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    default=("mac", "transformer"),
    show_default=True,
    help="Kind of model; several run by turns; may be repeated.",
)
@shared
def train(
    lengths: tuple[int, ...], batch: int, variants: tuple[str, ...], **others: Any
) -> None:
    """Whole optimizer steps, also over those of a transformer without a memory."""
    _show(lambda options: suites.train(options, lengths, batch, variants), **others)


@main.command()
@lengths(131072)
@shared
def prefill(lengths: tuple[int, ...], **others: Any) -> None:
    """Reading one long sequence, keeping only the state."""
    _show(
        lambda options: suites.stream(options, lengths, "prefill", "prefill"), **others
    )


@main.command()
@lengths(512, 8192, 131072)
@click.option("--tokens", default=128, show_default=True, help="Tokens drawn in a run.")
@shared
def decode(lengths: tuple[int, ...], tokens: int, **others: Any) -> None:
    """Drawing tokens one by one, after sequences of several lengths."""
    _show(lambda options: suites.decode(options, lengths, tokens), **others)


@main.command()
@lengths(512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
@click.option(
    "--form",
    type=click.Choice(["prefill", "forward"]),
    default="prefill",
    show_default=True,
    help="Keep only the state, or all logits.",
)
@shared
def scaling(lengths: tuple[int, ...], form: Any, **others: Any) -> None:
    """Time per token and peak memory by the length of the sequence."""
    _show(lambda options: suites.stream(options, lengths, form, "scaling"), **others)


@main.command("compile")
@click.option(
    "--depth",
    "depths",
    type=int,
    multiple=True,
    default=(2, 6, 12, 24),
    show_default=True,
    help="Layers; may be repeated.",
)
@shared
def compilation(depths: tuple[int, ...], **others: Any) -> None:
    """Time before the first training step, by the number of layers."""
    _show(lambda options: suites.compilation(options, depths), **others)


@main.command("roofline")
@lengths(2048)
@click.option(
    "--product-side", default=2048, show_default=True, help="Rows of its matrices."
)
@shared
def roofline_of_cases(
    lengths: tuple[int, ...], product_side: int, **others: Any
) -> None:
    """FLOP/s over those of a large matrix product in the same process."""
    _show(lambda options: roofline(options, lengths, product_side), **others)


@main.command()
@click.option("--peer-python", required=True, help="Python that has titans-pytorch.")
@click.option(
    "--case",
    "groups",
    type=click.Choice(list(GROUPS)),
    multiple=True,
    default=tuple(GROUPS),
    show_default=True,
    help="What is compared; may be repeated.",
)
@lengths(2048, 8192, name="memory-length")
@lengths(512, 2048, name="train-length")
@lengths(512, name="decode-length")
@click.option("--tokens", default=64, show_default=True, help="Tokens drawn in a run.")
@shared
def peers(
    peer_python: str,
    groups: tuple[str, ...],
    memory_lengths: tuple[int, ...],
    train_lengths: tuple[int, ...],
    decode_lengths: tuple[int, ...],
    tokens: int,
    **others: Any,
) -> None:
    """The same cases on titans-pytorch, by turns with ours."""
    chosen = Peers(
        python=peer_python,
        groups=groups,
        memory_lengths=memory_lengths,
        train_lengths=train_lengths,
        decode_lengths=decode_lengths,
        n_drawn=tokens,
    )
    _show(lambda options: compare(options, chosen), **others)


def _show(
    measure: Callable[[Options], Report],
    *,
    d_model: int | None,
    overrides: tuple[str, ...],
    repeats: int,
    json_path: str | None,
) -> None:
    """Measure, then show a table or write JSON."""
    try:
        if d_model is not None:
            overrides = (*overrides, f"model.d_model={d_model}")
        if json_path not in (None, "-"):
            _check_writable(json_path)
        report = measure(Options(overrides=overrides, repeats=repeats))
        if json_path == "-":
            click.echo(report.to_json())
            return
        report.print(Console(width=None if sys.stdout.isatty() else FILE_WIDTH))
        if json_path is not None:
            _write(json_path, report.to_json() + "\n")
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


def _check_writable(path: str) -> None:
    """Find out now, not after the measurement, and change nothing in the file."""
    try:
        Path(path).open("a").close()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}.") from error


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}.") from error


if __name__ == "__main__":
    main()
