"""Multi-query associative recall (MQAR), as the zoology project defines it.

First come pairs `k1 v1 k2 v2 ...`, all keys different; in the rest of the row each key
comes once more, and there its value is to be predicted. Nothing else is scored.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from titans_eqx.data.rows import UNSCORED
from titans_eqx.data.synthetic.task import check, unscored_row

FILLER: Final = 0  # token between queries; neither a key nor a value


@dataclass(frozen=True, kw_only=True)
class MultiQueryRecall:
    """Keys are the tokens of the lower half of the vocabulary, values of the upper.

    Deviation: between queries zoology puts tokens drawn from the whole vocabulary, also
    keys with a wrong successor; here one token stands there that means nothing.
    """

    vocab_size: int = 128
    n_pairs: int = 32  # in a row, each asked for once
    power: float = 1.0  # P(gap of g pairs) ~ g^(power - 1): 1 = anywhere, 0.01 = soon

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            DataError: If one is out of its range.
        """
        check(
            self,
            vocab_size=self.vocab_size >= 4,
            n_pairs=1 <= self.n_pairs < self.vocab_size // 2,
            power=0 < self.power <= 1,
        )

    @property
    def min_len(self) -> int:
        """Two tokens for each pair, and two places for each query."""
        return 4 * self.n_pairs

    def row(self, rng: np.random.Generator, seq_len: int) -> np.ndarray:
        """Draw a row; see `Task.row`."""
        n, half = self.n_pairs, self.vocab_size // 2
        keys = rng.permutation(half - 1)[:n] + 1
        values = rng.integers(half, self.vocab_size, size=n)
        n_places = (seq_len - 2 * n) // 2
        weights = np.arange(1, n_places + 1) ** (self.power - 1.0)
        gaps = rng.choice(n_places, size=n, replace=False, p=weights / weights.sum())
        tokens = np.full(seq_len, FILLER)
        tokens[0 : 2 * n : 2] = keys
        tokens[1 : 2 * n : 2] = values
        places = 2 * n + 2 * gaps
        tokens[places] = keys
        row = unscored_row(tokens)
        row[1, places] = values
        return row


def distances(row: np.ndarray) -> np.ndarray:
    """How far back the answer to each query stands.

    Args:
        row: A row of `MultiQueryRecall`.

    Returns:
        Tokens between a query and its pair; -1 where nothing is scored.
    """
    tokens, targets = row
    first: dict[int, int] = {}
    result = np.full(tokens.size, -1)
    for place, token in enumerate(tokens.tolist()):
        if targets[place] != UNSCORED:
            result[place] = place - first[token]
        first.setdefault(token, place)
    return result
