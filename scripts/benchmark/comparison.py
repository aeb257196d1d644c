"""The same cases on PyPI's titans-pytorch, by turns with ours."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from scripts.benchmark.options import Options, check_at_least_one
from scripts.benchmark.report import Report, Row, report_of

PACKAGE: Final = "titans_pytorch"
PEER: Final = Path(__file__).with_name("peer_titans_pytorch.py")
GROUPS: Final[dict[str, tuple[Kind, ...]]] = {
    "memory": ("memory_forward", "memory_gradient"),
    "train": ("train",),
    "decode": ("decode",),
}
"""What the user may choose -> the cases behind it."""


@dataclass(frozen=True, kw_only=True)
class Peers:
    """Which cases are compared, and where the other package is."""

    python: str  # an interpreter that has titans-pytorch
    groups: Sequence[str] = tuple(GROUPS)
    memory_lengths: Sequence[int] = (2048, 8192)
    train_lengths: Sequence[int] = (512, 2048)
    decode_lengths: Sequence[int] = (512,)
    n_drawn: int = 64


def compare(options: Options, peers: Peers) -> Report:
    """Measure every case on both, the runs of both by turns.

    Args:
        options: The user's.
        peers: What is compared.

    Returns:
        A row for each case, with what theirs needs over what ours needs.

    Raises:
        BenchmarkError: If the interpreter or its package cannot be used.
    """
    check_at_least_one("--tokens", peers.n_drawn)
    cases = _cases(options, peers)
    _check_interpreter(peers.python)
    rows: list[Row] = []
    for case in cases:
        ours, theirs = _both(case, peers.python, options.repeats)
        rows.append(_row(ours, theirs))
    report = report_of("peers", options, rows, ours)
    software = f"{report.software}; {theirs.facts['software']}"
    return replace(report, software=software)


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


def _cases(options: Options, peers: Peers) -> list[Case]:
    sizes = {
        "memory": (peers.memory_lengths, 2),
        "train": (peers.train_lengths, 4),
        "decode": (peers.decode_lengths, 1),
    }
    return [
        Case(
            kind=kind,
            config=options.sized(length, sizes[group][1]),
            n_drawn=peers.n_drawn,
        )
        for group in peers.groups
        for length in sizes[group][0]
        for kind in GROUPS[group]
    ]


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
        "length": ours.case.config.data.seq_len,
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
