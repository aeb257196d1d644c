import math

import numpy as np
import pytest
import scipy.stats

from titans_eqx.evaluation.table import accuracy_interval, paired_columns


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


def test_differences_of_pairs_have_a_t_interval():
    before, after = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 4.0])
    expected = scipy.stats.ttest_rel(after, before).confidence_interval()
    columns = paired_columns(before, after)
    assert columns["difference"] == pytest.approx(0.5)
    assert (columns["low"], columns["high"]) == pytest.approx(expected)
    alone = paired_columns(before[:1], after[:1])
    assert (alone["low"], alone["high"]) == (-np.inf, np.inf)
