import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.small import small_config, small_model
from titans_eqx.config import TaskConfig
from titans_eqx.data import UNSCORED
from titans_eqx.data.synthetic import MultiQueryRecall, TaskRows
from titans_eqx.evaluation import StreamScorer, binomial_interval, scoring
from titans_eqx.evaluation.measures import needle, recall


def test_rows_are_scored_as_streams(monkeypatch):
    monkeypatch.setattr(scoring, "PIECE_LEN", 8)
    model = small_model(small_config())
    task = MultiQueryRecall(vocab_size=12, n_pairs=2)
    rows = list(TaskRows(task, 19, 5, 0, "train"))
    scored = list(StreamScorer(model, batch_size=4)(rows))
    assert len(scored) == 5
    run = eqx.filter_jit(lambda model, ids: model(ids)[0])
    for (tokens, targets), (seen, loss, is_correct) in zip(rows, scored, strict=True):
        np.testing.assert_array_equal(seen, targets)
        logits = np.asarray(run(model, jnp.asarray(tokens)))
        places = np.flatnonzero(targets != UNSCORED)
        expected = -np.asarray(jax.nn.log_softmax(logits))[places, targets[places]]
        np.testing.assert_allclose(loss[places], expected, atol=1e-4)
        np.testing.assert_array_equal(
            is_correct[places], logits[places].argmax(axis=1) == targets[places]
        )


class Oracle:
    """A scorer that is right about all but every n-th scored token."""

    def __init__(self, wrong_every):
        self.wrong_every = wrong_every

    def __call__(self, rows):
        n_scored = 0
        for _, targets in rows:
            is_correct = np.zeros(targets.size, bool)
            for place in np.flatnonzero(targets != UNSCORED):
                n_scored += 1
                is_correct[place] = n_scored % self.wrong_every != 0
            yield targets, np.zeros(targets.size), is_correct


def test_recall_counts_answers_by_length_pairs_and_distance():
    task = TaskConfig(name="mqar", vocab_size=64)
    table = recall(Oracle(4), task, [64, 256], [4, 8], 10, seed=0)
    whole = [row for row in table if row["distance"] == 0]
    assert [(row["length"], row["pairs"]) for row in whole] == [
        (64, 4),
        (64, 8),
        (256, 4),
        (256, 8),
    ]
    for row in whole:
        assert row["cases"] == 10 * row["pairs"]
        assert row["accuracy"] == pytest.approx(0.75, abs=0.02)
        parts = [
            part
            for part in table
            if part["distance"] > 0
            and (part["length"], part["pairs"]) == (row["length"], row["pairs"])
        ]
        assert sum(part["cases"] for part in parts) == row["cases"]
        assert max(part["distance"] for part in parts) <= row["length"]


def test_a_needle_is_found_only_whole():
    task = TaskConfig(name="needle", n_digits=4)  # answers of 5 bytes
    found = needle(Oracle(10), task, [300], [0.0, 1.0], 8, seed=0)
    assert [row["depth"] for row in found] == [0.0, 1.0]
    # Every tenth byte is wrong: one in every second answer.
    assert [row["accuracy"] for row in found] == [0.5, 0.5]
    (row,) = needle(Oracle(5), task, [300], [0.5], 8, seed=0)
    assert row["accuracy"] == 0


def test_intervals_are_those_of_the_table():
    # Wilson (1927), as in every textbook example: 8 of 10.
    low, high = binomial_interval(8, 10)
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)
    assert binomial_interval(0, 5)[0] == 0
    assert binomial_interval(5, 5)[1] == 1
    assert binomial_interval(0, 0) == (0, 1)
    widths = [np.subtract(*binomial_interval(n // 2, n)) for n in (10, 100, 1000)]
    assert widths == sorted(widths)
    assert not math.isnan(sum(widths))
