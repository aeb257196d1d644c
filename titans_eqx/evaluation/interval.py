"""How sure a share of right answers is."""

import math
from typing import Final

Z_95: Final = 1.959964  # 97.5 % quantile of the normal distribution


def binomial_interval(n_right: int, n_cases: int) -> tuple[float, float]:
    """The 95 % interval of a share, after Wilson (1927).

    Args:
        n_right: Right answers.
        n_cases: All answers; none gives the whole range.

    Returns:
        Lower and upper end, in [0, 1].
    """
    if n_cases == 0:
        return 0.0, 1.0
    share = n_right / n_cases
    scale = 1 + Z_95**2 / n_cases
    centre = (share + Z_95**2 / (2 * n_cases)) / scale
    spread = math.sqrt(share * (1 - share) / n_cases + (Z_95 / (2 * n_cases)) ** 2)
    half = Z_95 * spread / scale
    # The ends of the range are exact, whatever the rounding.
    low = 0.0 if n_right == 0 else max(0.0, centre - half)
    high = 1.0 if n_right == n_cases else min(1.0, centre + half)
    return low, high


def share(n_right: int, n_cases: int) -> dict[str, float | int]:
    """A share of right answers as columns of a table.

    Args:
        n_right: Right answers.
        n_cases: All answers.

    Returns:
        `accuracy`, the ends of its 95 % interval, and the number of cases.
    """
    low, high = binomial_interval(n_right, n_cases)
    accuracy = n_right / n_cases if n_cases else math.nan
    return {"accuracy": accuracy, "low": low, "high": high, "cases": n_cases}
