"""The commands of the benchmark: which cases each one measures and what it shows.

Tokens per second count what a run reads, or draws; see `Program.n_tokens`.
"""

import functools
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

import click

from scripts.benchmark import comparison
from scripts.benchmark.case import Case, Kind
from scripts.benchmark.chunks import by_chunk_len
from scripts.benchmark.endurance import endurance
from scripts.benchmark.isolation import Measurement, measure, measure_each
from scripts.benchmark.options import (
    SHARED,
    Options,
    check_at_least_one,
    number,
    several,
)
from scripts.benchmark.report import Report, Row
from scripts.benchmark.roofline import roofline
from titans_eqx.commands.command import command
from titans_eqx.errors import UserError
from titans_eqx.evaluation.report import write_json
from titans_eqx.files import probe_output

Results: TypeAlias = tuple[list[Row], Measurement]
"""The rows of a report, and any measurement of it, which says where it was made."""

REFERENCE_LEN: Final = 4096  # long enough for fixed costs to vanish in a time per token
BASELINE: Final = "transformer"


@click.group()
def main() -> None:
    """Measure speed and memory; each case in a process of its own.

    The time is the median of several runs, compilation excluded. The setting is that of
    scripts/benchmark/setting.toml; --d-model and --set change it, and the options of
    a command win over --set.
    """


main.add_command(endurance)


def measurement(name: str) -> Callable[[Callable[..., Results]], click.Command]:
    """A command from the function that measures, with the options that all share."""

    def decorate(measured: Callable[..., Results]) -> click.Command:
        @functools.wraps(measured)
        def run(
            *,
            d_model: int | None,
            overrides: tuple[str, ...],
            repeats: int,
            json_path: str | None,
            **own: Any,
        ) -> None:
            check_at_least_one(repeats=repeats, **own)
            if json_path not in (None, "-"):
                probe_output(Path(json_path), "--json")
                if os.path.lexists(json_path):
                    raise UserError(f"{json_path} exists; name another with --json.")
            if d_model is not None:
                overrides = (*overrides, f"model.d_model={d_model}")
            options = Options(overrides=overrides, repeats=repeats)
            rows, one = measured(options, **own)
            report = Report(
                command=name,
                rows=rows,
                setting=options.config().model.model_dump(mode="json"),
                device=one.facts["device"],
                software=one.facts["software"],
            )
            if json_path == "-":
                click.echo(report.to_json())
                return
            report.print()
            if json_path is not None:
                write_json(asdict(report), Path(json_path))

        for option in reversed(SHARED):
            run = option(run)
        result = command()(run)
        main.add_command(result, name)
        return result

    return decorate


@measurement("memory")
@several("--length", 2048, 8192)
@number("--batch", 2, "Sequences.")
def memory(options: Options, lengths: tuple[int, ...], batch: int) -> Results:
    """One memory layer: forward, and forward with its gradient."""
    kinds: tuple[Kind, ...] = ("memory_forward", "memory_gradient")
    cases = [options.case(kind, n, batch) for n in lengths for kind in kinds]
    results = measure_each(cases, options.repeats)
    rows = [
        {"case": one.case.kind, "length": one.case.length, "batch": batch} | one.columns
        for one in results
    ]
    return rows, results[-1]


@measurement("train")
@several("--length", 512, 2048)
@number("--batch", 4, "Sequences.")
@several(
    "--variant", "mac", BASELINE, type=str, help="Pattern of layers; several take turns"
)
def train(
    options: Options, lengths: tuple[int, ...], batch: int, variants: tuple[str, ...]
) -> Results:
    """Whole optimizer steps, also over those of a transformer without a memory.

    Or over those of the last variant, if no transformer is measured.
    """
    baseline = BASELINE if BASELINE in variants else variants[-1]
    groups = [
        [options.case("train", n, batch, pattern=variant) for variant in variants]
        for n in lengths
    ]
    rows: list[Row] = []
    for cases in groups:
        results = measure(cases, options.repeats)
        least = results[variants.index(baseline)].seconds
        for variant, one in zip(variants, results, strict=True):
            row: Row = {
                "variant": variant,
                "length": one.case.length,
                "batch": batch,
                "parameters": one.facts["parameters"],
                f"time_over_{baseline}": one.seconds / least,
            }
            rows.append(row | one.columns)
    return rows, results[-1]


@measurement("prefill")
@several("--length", 131072)
def prefill(options: Options, lengths: tuple[int, ...]) -> Results:
    """Reading one long sequence, keeping only the state."""
    return _by_length(options, lengths, "prefill")


@measurement("scaling")
@several("--length", 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
@click.option(
    "--form",
    type=click.Choice(["prefill", "forward"]),
    default="prefill",
    show_default=True,
    help="Keep only the state, or all logits.",
)
def scaling(options: Options, lengths: tuple[int, ...], form: Kind) -> Results:
    """Time per token and peak memory by the length of the sequence."""
    return _by_length(options, lengths, form)


@measurement("decode")
@several("--length", 512, 8192, 131072)
@number("--tokens", 128, "Tokens drawn in a run.")
def decode(options: Options, lengths: tuple[int, ...], tokens: int) -> Results:
    """Drawing tokens one by one, after sequences of several lengths."""
    cases = [options.case("decode", n, n_drawn=tokens) for n in lengths]
    results = measure(cases, options.repeats)
    rows: list[Row] = [
        {
            "case": "decode",
            "after": one.case.length,
            "drawn": tokens,
            f"time_over_{lengths[0]}": one.seconds / results[0].seconds,
            **one.columns,
        }
        for one in results
    ]
    return rows, results[-1]


@measurement("compile")
@several("--depth", 2, 6, 12, 24, help="Layers")
def compilation(options: Options, depths: tuple[int, ...]) -> Results:
    """Time before the first training step, by the number of layers.

    Every run has a process of its own, without a compilation cache.
    """
    configs = [options.config(model__n_layers=depth) for depth in depths]
    cases = [Case(kind="compile", config=config) for config in configs]
    rounds = [measure_each(cases, 1) for _ in range(options.repeats)]
    rows: list[Row] = []
    for depth, results in zip(depths, zip(*rounds, strict=True), strict=True):
        runs = [one.seconds for one in results]
        first = rows[0]["seconds"] if rows else median(runs)
        rows.append(
            {
                "case": "compile",
                "layers": depth,
                "seconds": median(runs),
                f"time_over_{depths[0]}": median(runs) / first,
                "peak_mib": max(one.peak_mib for one in results),
                "runs": runs,
            }
        )
    return rows, rounds[-1][-1]


@measurement("roofline")
@several("--length", 2048)
@number("--product-side", 2048, "Rows of its matrices.")
def roofline_of_cases(options: Options, **own: Any) -> Results:
    """FLOP/s over those of a large matrix product in the same process.

    For a training step with train.precision=mixed that product is in bfloat16.
    """
    return roofline(options, **own)


@measurement("chunks")
@several("--chunk-len", 8, 16, 32, 64, 128, help="Tokens in a chunk")
@number("--length", 2048, "Tokens in a sequence.")
@number("--batch", 4, "Sequences.")
@number("--global-chunk", 512, "Tokens in a chunk of TNT's global memory.")
@number("--shard", 256, "Tokens in a shard of TNT's local memory.")
def chunks(options: Options, chunk_lens: tuple[int, ...], **own: int) -> Results:
    """Optimizer steps of lmm by chunk length, with one memory and with TNT's."""
    return by_chunk_len(options, chunk_lens, **own)


@measurement("peers")
@click.option("--peer-python", required=True, help="Python that has titans-pytorch.")
@several(
    "--case",
    *comparison.GROUPS,
    type=click.Choice(list(comparison.GROUPS)),
    help="What is compared",
)
@several("--memory-length", 2048, 8192)
@several("--train-length", 512, 2048)
@several("--decode-length", 512)
@number("--tokens", 64, "Tokens drawn in a run.")
def peers(
    options: Options,
    peer_python: str,
    cases: tuple[str, ...],
    memory_lengths: tuple[int, ...],
    train_lengths: tuple[int, ...],
    decode_lengths: tuple[int, ...],
    tokens: int,
) -> Results:
    """The same cases on titans-pytorch, by turns with ours."""
    sizes = {
        "memory": (memory_lengths, 2),
        "train": (train_lengths, 4),
        "decode": (decode_lengths, 1),
    }
    compared = [
        options.case(kind, length, sizes[group][1], n_drawn=tokens)
        for group in cases
        for length in sizes[group][0]
        for kind in comparison.GROUPS[group]
    ]
    return comparison.compare(compared, peer_python, options.repeats)


def _by_length(options: Options, lengths: tuple[int, ...], kind: Kind) -> Results:
    """Time per token over that at `REFERENCE_LEN` or else the first length."""
    cases = [options.case(kind, n) for n in lengths]
    results = measure_each(cases, options.repeats)
    reference = REFERENCE_LEN if REFERENCE_LEN in lengths else lengths[0]
    speed = results[lengths.index(reference)].tokens_per_second
    rows: list[Row] = [
        {
            "case": kind,
            "length": one.case.length,
            "microseconds_per_token": 1e6 / one.tokens_per_second,
            f"time_per_token_over_{reference}": speed / one.tokens_per_second,
            **one.columns,
        }
        for one in results
    ]
    return rows, results[-1]
