"""The same cases on PyPI's titans-pytorch, by turns with ours."""

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from scripts.benchmark.case import Case, Kind
from scripts.benchmark.isolation import (
    BenchmarkError,
    Measurement,
    Worker,
    measure_workers,
    working_on,
)
from scripts.benchmark.report import Row

PACKAGE: Final = "titans_pytorch"
PEER: Final = Path(__file__).with_name("peer_titans_pytorch.py")
GROUPS: Final[dict[str, tuple[Kind, ...]]] = {
    "memory": ("memory_forward", "memory_gradient"),
    "train": ("train",),
    "decode": ("decode",),
}
"""What the user may choose -> the cases behind it."""


def compare(
    cases: Sequence[Case], python: str, repeats: int
) -> tuple[list[Row], Measurement]:
    """Measure every case on both, the runs of both by turns.

    Args:
        cases: At least one.
        python: An interpreter that has titans-pytorch.
        repeats: Timed runs of each.

    Returns:
        A row for each case, with what theirs needs over what ours needs; and a
        measurement that names the software of both.

    Raises:
        BenchmarkError: If the interpreter or its package cannot be used.
    """
    _check_interpreter(python)
    pairs = [_both(case, python, repeats) for case in cases]
    ours, theirs = pairs[-1]
    software = f"{ours.facts['software']}; {theirs.facts['software']}"
    measured = replace(ours, facts=ours.facts | {"software": software})
    return [_row(*pair) for pair in pairs], measured


def _check_interpreter(python: str) -> None:
    """Find out before anything is measured that the other package is there."""
    try:
        process = subprocess.run(
            [python, "-c", f"import {PACKAGE}"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise BenchmarkError(
            f"cannot run --peer-python {python}: {error.strerror or error}; name a "
            "Python interpreter."
        ) from error
    if process.returncode != 0:
        said = process.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise BenchmarkError(
            f"--peer-python {python} cannot import {PACKAGE}: {said[0]}; install "
            "titans-pytorch there."
        )


def _both(case: Case, python: str, repeats: int) -> tuple[Measurement, Measurement]:
    command = (python, "-W", "ignore", str(PEER))
    with working_on(case), Worker(case) as ours:
        platform = ours.facts["platform"]
        with Worker(case, command=command, platform=platform) as theirs:
            measured = measure_workers([ours, theirs], repeats)
    return measured[0], measured[1]


def _row(ours: Measurement, theirs: Measurement) -> Row:
    return {
        "case": ours.case.kind,
        "length": ours.case.length,
        "tokens_per_second": ours.tokens_per_second,
        "peer_tokens_per_second": theirs.tokens_per_second,
        "speed_ratio": ours.tokens_per_second / theirs.tokens_per_second,
        "peak_mib": ours.peak_mib,
        "peer_peak_mib": theirs.peak_mib,
        "memory_ratio": ours.peak_mib / theirs.peak_mib,
        # Pairs are not shown in the table.
        "running_mib": [ours.running_mib, theirs.running_mib],
        "parameters": [ours.facts["parameters"], theirs.facts["parameters"]],
        "runs": list(ours.runs),
        "peer_runs": list(theirs.runs),
    }
