"""How much of the matrix peak of this machine a case reaches."""

from collections.abc import Sequence
from statistics import median
from typing import Final

from scripts.benchmark.case import Case, Kind
from scripts.benchmark.isolation import Measurement, Worker, working_on
from scripts.benchmark.options import Options, check_at_least_one
from scripts.benchmark.report import Report, Row, columns_of, report_of
from scripts.benchmark.timing import by_turns

BATCHES: Final[dict[Kind, int]] = {"memory_forward": 2, "train": 4}
"""What is measured, and with how many sequences."""

GIGA: Final = 1e9


def roofline(options: Options, lengths: Sequence[int], product_side: int) -> Report:
    """FLOP/s of useful matrix products over those of one large product.

    See `Program.useful_flops` for what is useful. The product is measured in the same
    process, by turns with the case.

    Args:
        options: The user's.
        lengths: Tokens in a sequence.
        product_side: Rows and columns of the large matrices.

    Returns:
        A row for each kind and length.
    """
    check_at_least_one("--product-side", product_side)
    cases = [
        Case(kind=kind, config=options.sized(length, batch), product_side=product_side)
        for kind, batch in BATCHES.items()
        for length in lengths
    ]
    rows: list[Row] = []
    for case in cases:
        with working_on(case), Worker(case) as worker:
            row, measured = _measure(worker, options.repeats)
        rows.append(row)
    return report_of("roofline", options, rows, measured)


def _measure(worker: Worker, repeats: int) -> tuple[Row, Measurement]:
    flops = worker.number("count")
    worker.run()
    # Before the large matrices are there.
    peak_mib, running_mib = worker.number("peak"), worker.number("running peak")
    seconds, rates = by_turns([worker.run, lambda: worker.number("multiply")], repeats)
    measured = Measurement(
        case=worker.case,
        facts=worker.facts,
        runs=seconds,
        peak_mib=peak_mib,
        running_mib=running_mib,
    )
    achieved, peak = flops / measured.seconds, median(rates)
    row: Row = {
        "case": worker.case.kind,
        "length": worker.case.config.data.seq_len,
        "gflop": flops / GIGA,
        "gflop_per_second": achieved / GIGA,
        "product_gflop_per_second": peak / GIGA,
        "fraction": achieved / peak,
        **columns_of(measured),
    }
    return row, measured
