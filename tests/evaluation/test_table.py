import math

import numpy as np
import pytest

from titans_eqx.evaluation.table import accuracy_interval


def test_intervals_are_those_of_the_table():
    # Wilson (1927), as in every textbook example: 8 of 10.
    low, high = accuracy_interval(8, 10)
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)
    assert accuracy_interval(0, 5)[0] == 0
    assert accuracy_interval(5, 5)[1] == 1
    assert accuracy_interval(0, 0) == (0, 1)
    widths = [np.subtract(*accuracy_interval(n // 2, n)) for n in (10, 100, 1000)]
    assert widths == sorted(widths)
    assert not math.isnan(sum(widths))
