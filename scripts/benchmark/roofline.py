"""How much of the matrix peak of this machine a case reaches."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Final

from scripts.benchmark.case import Kind
from scripts.benchmark.isolation import Measurement, Worker, working_on
from scripts.benchmark.options import Options
from scripts.benchmark.report import Row
from scripts.benchmark.timing import by_turns

BATCHES: Final[dict[Kind, int]] = {"memory_forward": 2, "train": 4}
"""What is measured, and with how many sequences."""

GIGA: Final = 1e9


def roofline(
    options: Options, lengths: Sequence[int], product_side: int
) -> tuple[list[Row], Measurement]:
    """FLOP/s of useful matrix products over those of one large product.

    See `Program.useful_flops` for what is useful. The product has factors of the same
    type (`Program.dtype`) and is measured in the same process, by turns with the case.

    Args:
        options: The user's.
        lengths: Tokens in a sequence.
        product_side: Rows and columns of the large matrices.
    """
    cases = [
        options.case(kind, length, batch, product_side=product_side)
        for kind, batch in BATCHES.items()
        for length in lengths
    ]
    rows: list[Row] = []
    for case in cases:
        with working_on(case), Worker(case) as worker:
            row, measured = _measure(worker, options.repeats)
        rows.append(row)
    return rows, measured


def _measure(worker: Worker, repeats: int) -> tuple[Row, Measurement]:
    flops = worker.number("count")
    # Its memory is that of one run, before the large matrices are there.
    before = worker.measured((worker.run(),))
    runs, rates = by_turns([worker.run, lambda: worker.number("multiply")], repeats)
    measured = replace(before, runs=runs)
    achieved, peak = flops / measured.seconds, median(rates)
    row: Row = {
        "case": worker.case.kind,
        "length": worker.case.length,
        "gflop": flops / GIGA,
        "gflop_per_second": achieved / GIGA,
        "product_gflop_per_second": peak / GIGA,
        "fraction": achieved / peak,
        **measured.columns,
    }
    return row, measured
