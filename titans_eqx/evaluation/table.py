"""Tables of an evaluation, and the columns that several of them have."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from scipy.stats import binomtest, t

Table: TypeAlias = list[dict[str, Any]]
"""Lines with the same columns; plain values, as in JSON."""

FIRST_RANGE: Final = 32  # positions in the first range; each next one ends at twice


def accuracy_interval(n_correct: int, n_cases: int) -> tuple[float, float]:
    """95 % confidence interval of an accuracy (Wilson, 1927); no cases: all of it."""
    if n_cases == 0:
        return 0.0, 1.0
    interval = binomtest(n_correct, n_cases).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def accuracy_columns(n_correct: int, n_cases: int) -> dict[str, float | int]:
    """An accuracy, its 95 % confidence interval, and the number of cases."""
    low, high = accuracy_interval(n_correct, n_cases)
    accuracy = n_correct / n_cases if n_cases else math.nan
    return {"accuracy": accuracy, "low": low, "high": high, "cases": n_cases}


def accuracy_over_seeds(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean accuracy of runs that differ in their seed, and its 95 % interval.

    Args:
        lines: Of each run the `accuracy_columns`, of the same number of cases.

    Returns:
        The interval over seeds (Student's t, within [0, 1]); of one seed that over its
        cases, which knows nothing of what another seed would do.
    """
    first, over = lines[0], "cases"
    mean, low, high = (first[key] for key in ("accuracy", "low", "high"))
    if len(lines) > 1:
        over = "seeds"
        mean, half = _mean_interval(np.array([line["accuracy"] for line in lines]))
        low, high = max(mean - half, 0.0), min(mean + half, 1.0)
    columns = {"accuracy": mean, "low": low, "high": high, "over": over}
    return columns | {"seeds": len(lines), "cases": first["cases"]}


def paired_columns(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """The mean difference of pairs, and its 95 % confidence interval (Student's t).

    Args:
        before: (pairs,).
        after: (pairs,), of the same things.

    Returns:
        After minus before; of one pair the interval is everything.
    """
    mean, half = _mean_interval(np.asarray(after, float) - np.asarray(before, float))
    return {"difference": mean, "low": mean - half, "high": mean + half}


def _mean_interval(values: np.ndarray) -> tuple[float, float]:
    """A mean, and half of its 95 % confidence interval; of one value infinite."""
    count, half = len(values), math.inf
    if count > 1:
        half = float(t.ppf(0.975, count - 1) * values.std(ddof=1) / count**0.5)
    return float(values.mean()), half


def ratio_per_row(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The ratio of two totals as a mean over rows, to first order.

    Rows have unequal counts, so the mean of their own ratios is another number. The
    deviations of these values are those of the ratio, and those of two models can be
    paired.

    Args:
        sums: (rows,).
        counts: (rows,), not all of them zero.

    Returns:
        (rows,), whose mean is the sum of the sums over that of the counts.
    """
    ratio = sums.sum() / counts.sum()
    return ratio + (sums - ratio * counts) / counts.mean()


def doubling_ranges(length: int, first: int = FIRST_RANGE) -> list[tuple[int, int]]:
    """Ranges of positions that end at `first`, twice that, ... and at the length."""
    ends = [first]
    while ends[-1] < length:
        ends.append(2 * ends[-1])
    ends[-1] = min(ends[-1], length)
    return list(zip([0, *ends[:-1]], ends, strict=True))
