"""State tracking: what has come of all tokens so far is predicted at each of them.

Both tasks need a state that every token changes. The word problem of S_5 is complete
for NC1, so that a model in TC0, such as attention of fixed depth, cannot solve it for
all lengths unless the two classes are one (Titans, theorem 4.1; arXiv 2404.08819).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np

from titans_eqx.data.example import Example
from titans_eqx.data.synthetic.task import answered_at


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Bits; the answer is whether the number of ones so far is odd."""

    @property
    def vocab_size(self) -> int:
        """Zero and one, also as answers."""
        return 2

    @property
    def min_len(self) -> int:
        """One bit."""
        return 1

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
        bits = rng.integers(2, size=seq_len)
        return answered_at(bits, np.arange(seq_len), np.cumsum(bits) % 2)


@dataclass(frozen=True, kw_only=True)
class WordProblem:
    """Permutations of some points; the answer is the product of those so far.

    A token is a permutation by its place in the order of the alphabet. Each is applied
    to what those before it have made. Those that move few points are not all, but make
    all: swaps alone leave the problem as hard (any permutation is a few of them), and
    each of them is one reflection, which is what a single write can do to a state.

    Others take several writes. With `tokens_each` above 1 a permutation is spelled with
    as many tokens of its own, and the answer is asked for at the last of them.
    """

    n_points: int
    n_moved: int  # points that a permutation may move
    tokens_each: int

    @cached_property
    def elements(self) -> list[tuple[int, ...]]:
        """Where each permutation takes each point, by token."""
        return list(permutations(range(self.n_points)))

    @cached_property
    def moves(self) -> np.ndarray:
        """The permutations that are drawn."""
        n_moved = [
            sum(point != place for place, point in enumerate(element))
            for element in self.elements
        ]
        return np.flatnonzero(np.array(n_moved) <= self.n_moved)

    @property
    def vocab_size(self) -> int:
        """The tokens of each permutation; the first of them are the answers."""
        return self.tokens_each * len(self.elements)

    @property
    def min_len(self) -> int:
        """One permutation."""
        return self.tokens_each

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
        drawn = rng.choice(self.moves, size=math.ceil(seq_len / self.tokens_each))
        number = {element: token for token, element in enumerate(self.elements)}
        product, answers = self.elements[0], []  # the first one moves nothing
        for place in drawn.tolist():
            element = self.elements[place]
            product = tuple(element[point] for point in product)
            answers.append(number[product])
        # The first tokens of all permutations, then the second ones, and so on.
        spelled = drawn[:, None] + len(self.elements) * np.arange(self.tokens_each)
        positions = np.arange(self.tokens_each - 1, seq_len, self.tokens_each)
        asked = np.array(answers[: len(positions)])  # the last one may be cut off
        return answered_at(spelled.reshape(-1)[:seq_len], positions, asked)
