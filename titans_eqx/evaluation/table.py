"""Tables of an evaluation, and the columns that several of them have."""

import math
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


def paired_columns(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """The mean difference of pairs, and its 95 % confidence interval (Student's t).

    Args:
        before: (pairs,).
        after: (pairs,), of the same things.

    Returns:
        After minus before; of one pair the interval is everything.
    """
    differences = np.asarray(after, float) - np.asarray(before, float)
    mean, count = float(differences.mean()), len(differences)
    half = math.inf
    if count > 1:
        half = float(t.ppf(0.975, count - 1) * differences.std(ddof=1) / count**0.5)
    return {"difference": mean, "low": mean - half, "high": mean + half}


def doubling_ranges(length: int) -> list[tuple[int, int]]:
    """Ranges of positions that end at 32, 64, 128, ... and at the length."""
    ends = [FIRST_RANGE]
    while ends[-1] < length:
        ends.append(2 * ends[-1])
    ends[-1] = min(ends[-1], length)
    return list(zip([0, *ends[:-1]], ends, strict=True))
