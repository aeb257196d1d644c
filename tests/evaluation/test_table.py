import numpy as np
import pytest
import scipy.stats

from titans_eqx.evaluation.table import (
    accuracy_columns,
    paired_columns,
    pooled_columns,
)


def interval(n_correct, n_cases):
    columns = accuracy_columns(np.array(n_correct), np.array(n_cases))
    return columns["low"], columns["high"]


def test_intervals_are_those_of_the_table():
    # Wilson (1927), as in every textbook example: 8 of 10.
    one_each = np.ones(10, int)
    eight = np.arange(10) < 8
    assert interval(eight, one_each) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert interval(0 * one_each, one_each)[0] == 0
    assert interval(one_each, one_each)[1] == pytest.approx(1)
    # Of many in one example nothing is known but that there was one.
    wilson = scipy.stats.binomtest(1, 1).proportion_ci(method="wilson")
    assert interval([64], [64]) == pytest.approx((wilson.low, wilson.high))


@pytest.mark.parametrize("n_examples", [4, 40])
def test_an_interval_holds_though_the_cases_of_an_example_belong_together(n_examples):
    """Each example is right up to a slip: as many as 95 % say cover the truth."""
    rng = np.random.default_rng(0)
    n_cases, covered = np.full(n_examples, 64), []
    for _ in range(500):
        n_correct = rng.integers(65, size=n_examples)
        low, high = interval(n_correct, n_cases)
        covered.append(low <= 0.5 <= high)
    assert 0.92 < np.mean(covered) < 0.99


def test_independent_cases_count_in_full_however_they_are_grouped():
    rng = np.random.default_rng(1)
    n_correct = rng.binomial(64, 0.5, size=4_000)
    columns = accuracy_columns(n_correct, np.full(4_000, 64))
    assert columns["independent"] == pytest.approx(4_000 * 64, rel=0.1)


def test_lots_of_examples_are_pooled():
    rng = np.random.default_rng(2)
    lots = [(rng.integers(5, size=9), np.full(9, 4)) for _ in range(3)]
    pooled = pooled_columns([accuracy_columns(*lot) for lot in lots])
    together = accuracy_columns(*np.concatenate(lots, axis=1))
    assert pooled["accuracy"] == pytest.approx(together["accuracy"])
    assert pooled["cases"] == together["cases"] == 3 * 9 * 4
    for key in ("low", "high"):
        assert pooled[key] == pytest.approx(together[key], abs=0.03)


def test_differences_of_pairs_have_a_t_interval():
    before, after = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 4.0])
    expected = scipy.stats.ttest_rel(after, before).confidence_interval()
    columns = paired_columns(before, after)
    assert columns["difference"] == pytest.approx(0.5)
    assert (columns["low"], columns["high"]) == pytest.approx(expected)
    alone = paired_columns(before[:1], after[:1])
    assert (alone["low"], alone["high"]) == (-np.inf, np.inf)
