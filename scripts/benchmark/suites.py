"""What each command of the benchmark measures, except the comparison with others.

Tokens per second count what a run reads, or draws; see `Program.n_tokens`.
"""

from collections.abc import Sequence
from statistics import median
from typing import Final, Literal

from scripts.benchmark.case import Case
from scripts.benchmark.isolation import Measurement, measure
from scripts.benchmark.options import Options, check_at_least_one
from scripts.benchmark.report import Report, Row, columns_of, report_of

REFERENCE_LEN: Final = 4096  # long enough for fixed costs to vanish in a time per token
BASELINE: Final = "transformer"


def memory(options: Options, lengths: Sequence[int], batch: int) -> Report:
    """The memory layer, forward and with its gradient.

    Args:
        options: The user's.
        lengths: Tokens in a sequence.
        batch: Sequences.

    Returns:
        A row for each length and direction.
    """
    kinds = ("memory_forward", "memory_gradient")
    configs = [options.sized(length, batch) for length in lengths]
    cases = [Case(kind=kind, config=one) for one in configs for kind in kinds]
    results = [measure([case], options.repeats)[0] for case in cases]
    rows: list[Row] = [
        {
            "case": one.case.kind,
            "length": one.case.config.data.seq_len,
            "batch": batch,
            **columns_of(one),
        }
        for one in results
    ]
    return report_of("memory", options, rows, results[-1])


def train(
    options: Options, lengths: Sequence[int], batch: int, variants: Sequence[str]
) -> Report:
    """The training step of several variants by turns.

    Args:
        options: The user's.
        lengths: Tokens in a sequence.
        batch: Sequences.
        variants: Kinds of model; times are also given over those of a transformer, or
            of the last variant if there is none.

    Returns:
        A row for each length and variant.
    """
    baseline = BASELINE if BASELINE in variants else variants[-1]
    groups = [
        [
            Case(kind="train", config=options.sized(n, batch, model__variant=variant))
            for variant in variants
        ]
        for n in lengths
    ]
    rows: list[Row] = []
    results: list[Measurement] = []
    for cases in groups:
        results = measure(cases, options.repeats)
        least = results[variants.index(baseline)].seconds
        for variant, one in zip(variants, results, strict=True):
            row: Row = {
                "variant": variant,
                "length": one.case.config.data.seq_len,
                "batch": batch,
                "parameters": one.facts["parameters"],
                f"time_over_{baseline}": one.seconds / least,
            }
            rows.append(row | columns_of(one))
    return report_of("train", options, rows, results[-1])


def stream(
    options: Options,
    lengths: Sequence[int],
    kind: Literal["prefill", "forward"],
    command: str,
) -> Report:
    """Reading one sequence of each length.

    Args:
        options: The user's.
        lengths: Tokens in the sequence.
        kind: How it is read.
        command: Name of the command.

    Returns:
        A row for each length, with the time per token over that at `REFERENCE_LEN`
        tokens, or at the first length if that one is not measured.
    """
    configs = [options.sized(length, 1) for length in lengths]
    cases = [Case(kind=kind, config=config) for config in configs]
    results = [measure([case], options.repeats)[0] for case in cases]
    reference = REFERENCE_LEN if REFERENCE_LEN in lengths else lengths[0]
    speed = results[lengths.index(reference)].tokens_per_second
    rows: list[Row] = [
        {
            "case": kind,
            "length": length,
            "microseconds_per_token": 1e6 / one.tokens_per_second,
            f"time_per_token_over_{reference}": speed / one.tokens_per_second,
            **columns_of(one),
        }
        for length, one in zip(lengths, results, strict=True)
    ]
    return report_of(command, options, rows, results[-1])


def decode(options: Options, lengths: Sequence[int], n_drawn: int) -> Report:
    """Drawing tokens one by one after a sequence of each length, by turns.

    Args:
        options: The user's.
        lengths: Tokens read before.
        n_drawn: Tokens drawn in a run.

    Returns:
        A row for each length, with the time over that at the first length.
    """
    check_at_least_one("--tokens", n_drawn)
    configs = [options.sized(length, 1) for length in lengths]
    cases = [Case(kind="decode", config=one, n_drawn=n_drawn) for one in configs]
    results = measure(cases, options.repeats)
    rows: list[Row] = [
        {
            "case": "decode",
            "after": length,
            "drawn": n_drawn,
            f"time_over_{lengths[0]}": one.seconds / results[0].seconds,
            **columns_of(one),
        }
        for length, one in zip(lengths, results, strict=True)
    ]
    return report_of("decode", options, rows, results[-1])


def compilation(options: Options, depths: Sequence[int]) -> Report:
    """Tracing and compiling the training step by the number of layers.

    Every run has a process of its own, so that nothing is warm, and no compilation
    cache.

    Args:
        options: The user's.
        depths: Numbers of layers.

    Returns:
        A row for each depth, with the time over that at the first depth.
    """
    configs = [options.config(model__n_layers=depth) for depth in depths]
    cases = [Case(kind="compile", config=config) for config in configs]
    rounds = [[measure([case], 1)[0] for case in cases] for _ in range(options.repeats)]
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
    return report_of("compile", options, rows, rounds[-1][-1])
