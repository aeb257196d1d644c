"""Tables of an evaluation, and the columns that several of them have."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from scipy.special import ndtri, stdtrit  # scipy.stats takes a second to import

Table: TypeAlias = list[dict[str, Any]]
"""Lines with the same columns; plain values, as in JSON."""

FIRST_RANGE: Final = 32  # positions in the first range; each next one ends at twice


def accuracy_columns(n_correct: np.ndarray, n_cases: np.ndarray) -> dict[str, Any]:
    """The accuracy over all cases, and its 95 % confidence interval over examples.

    The cases of one example stand or fall together, so they say less than as many
    independent ones. `independent` is how many of those would say as much, from what
    varies between the examples (Korn and Graubard, 1998): at most all cases, and where
    nothing varies one for each example.

    Args:
        n_correct: (examples,).
        n_cases: (examples,), not all of them zero.
    """
    n_correct, n_cases = n_correct[n_cases > 0], n_cases[n_cases > 0]
    total, n_examples = int(n_cases.sum()), len(n_cases)
    accuracy = float(n_correct.sum() / total)
    independent = float(n_examples)
    if 1 < n_examples < total:
        variance = ratio_per_row(n_correct, n_cases).var(ddof=1) / n_examples
        # Few examples tell little of how they vary.
        variance *= (stdtrit(n_examples - 1, 0.975) / ndtri(0.975)) ** 2
        if variance > 0:
            independent = min(float(accuracy * (1 - accuracy) / variance), float(total))
    return _with_interval(accuracy, total, independent)


def pooled_columns(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The `accuracy_columns` of several lots of examples together.

    Args:
        lines: Of each lot the `accuracy_columns`.
    """
    total = sum(line["cases"] for line in lines)
    n_correct = sum(round(line["accuracy"] * line["cases"]) for line in lines)
    independent = sum(line["independent"] for line in lines)
    return _with_interval(n_correct / total, total, independent)


def _with_interval(accuracy: float, cases: int, independent: float) -> dict[str, Any]:
    """An accuracy with the interval of Wilson (1927) for so many independent cases."""
    z2 = float(ndtri(0.975)) ** 2
    middle = accuracy + z2 / (2 * independent)
    variance = accuracy * (1 - accuracy) / independent + z2 / (4 * independent**2)
    half, whole = math.sqrt(z2 * variance), 1 + z2 / independent
    return {
        "accuracy": accuracy,
        "low": max((middle - half) / whole, 0.0),
        "high": min((middle + half) / whole, 1.0),
        "cases": cases,
        "independent": independent,
    }


def accuracy_over_seeds(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean accuracy of runs that differ in their seed, and its 95 % interval.

    Args:
        lines: Of each run the `accuracy_columns`, of the same number of cases.

    Returns:
        The interval over seeds (Student's t, within [0, 1]); of one seed that over its
        examples, which knows nothing of what another seed would do.
    """
    first, over = lines[0], "examples"
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
        half = float(stdtrit(count - 1, 0.975) * values.std(ddof=1) / count**0.5)
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
