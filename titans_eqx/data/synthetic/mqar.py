"""Multi-query associative recall (MQAR), as the zoology project defines it.

First come pairs `k1 v1 k2 v2 ...`, all keys and all values different; in the rest of
the sequence each key is asked for once, and there its value is to be predicted. Nothing
else is scored.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from titans_eqx.data.example import Example
from titans_eqx.data.synthetic.task import answered_at

BLANK: Final = 0  # neither a key nor a value


@dataclass(frozen=True, kw_only=True)
class MultiQueryRecall:
    """Keys are the tokens of the lower half of the vocabulary, values of the upper.

    Between the queries stand tokens drawn from the whole vocabulary, keys with a wrong
    successor among them: what is asked for is the value that a key had first. With the
    filler "constant" the blank stands there, so that nothing interferes.
    """

    vocab_size: int
    n_pairs: int  # each asked for once
    power: float  # P(gap of g pairs) ~ g^(power - 1): 1 = anywhere, 0.01 = soon
    filler: Literal["random", "constant"]

    @property
    def min_len(self) -> int:
        """Two tokens for each pair, and two positions for each query."""
        return 4 * self.n_pairs

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
        n, half = self.n_pairs, self.vocab_size // 2
        keys = rng.permutation(half - 1)[:n] + 1
        values = rng.permutation(self.vocab_size - half)[:n] + half
        n_gaps = (seq_len - 2 * n) // 2
        weights = np.arange(1, n_gaps + 1) ** (self.power - 1.0)
        gaps = rng.choice(n_gaps, size=n, replace=False, p=weights / weights.sum())
        queries = 2 * n + 2 * gaps
        tokens = np.full(seq_len, BLANK)
        if self.filler == "random":
            tokens = rng.integers(self.vocab_size, size=seq_len)
        tokens[0 : 2 * n : 2] = keys
        tokens[1 : 2 * n : 2] = values
        tokens[queries] = keys
        return answered_at(tokens, queries, values)


def distances(example: Example) -> np.ndarray:
    """Tokens between each query of MQAR and its pair; -1 where nothing is scored."""
    first: dict[int, int] = {}
    result = np.full(example["inputs"].size, -1)
    for position, token in enumerate(example["inputs"].tolist()):
        if example["mask"][position]:
            result[position] = position - first[token]
        first.setdefault(token, position)
    return result
