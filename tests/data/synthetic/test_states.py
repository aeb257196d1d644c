"""Which tokens the tasks of state tracking draw."""

from itertools import permutations

import numpy as np
import pytest

from titans_eqx.config import WordProblemConfig
from titans_eqx.data import TaskExamples, build_task


@pytest.mark.parametrize(("n_moved", "n_tokens"), [(2, 7), (3, 15), (4, 24), (6, 24)])
def test_the_word_problem_draws_the_permutations_that_move_few_points(
    n_moved, n_tokens
):
    """Of 4 points: the identity and 6 swaps, then 8 cycles of 3, then 9 of all."""
    task = build_task(WordProblemConfig(n_points=4, n_moved=n_moved))
    (example,) = TaskExamples(task, 1000, 1, 0, "train")
    drawn = np.unique(example["inputs"])
    moved = [
        sum(point != place for place, point in enumerate(element))
        for element in permutations(range(4))
    ]
    assert len(drawn) == n_tokens
    assert max(moved[token] for token in drawn) == min(n_moved, 4)
    assert len(np.unique(example["targets"])) == 24
