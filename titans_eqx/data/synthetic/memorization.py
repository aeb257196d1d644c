"""Memorisation in the manner of MAD (Poli et al., 2024).

A fixed table from keys to values, the same in all rows and never shown: the weights of
the model must learn it. It measures what a memory must not be needed for.
"""

from dataclasses import dataclass

import numpy as np

from titans_eqx.data.synthetic.task import check, unscored_row


@dataclass(frozen=True, kw_only=True)
class Memorization:
    """Keys, each followed by a blank below which the key's value is to be predicted."""

    vocab_size: int = 128  # keys are the lower half, the last token is the blank
    table_seed: int = 0  # decides the table

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            DataError: If one is out of its range.
        """
        check(self, vocab_size=self.vocab_size >= 4, table_seed=self.table_seed >= 0)

    @property
    def min_len(self) -> int:
        """A key and a blank."""
        return 2

    @property
    def table(self) -> np.ndarray:
        """The value of each key."""
        half = self.vocab_size // 2
        rng = np.random.default_rng(self.table_seed)
        return rng.integers(half, self.vocab_size - 1, size=half)

    def row(self, rng: np.random.Generator, seq_len: int) -> np.ndarray:
        """Draw a row; see `Task.row`."""
        keys = rng.integers(self.vocab_size // 2, size=seq_len // 2)
        row = unscored_row(np.full(seq_len, self.vocab_size - 1))
        row[0, 0 : 2 * keys.size : 2] = keys
        row[1, 1 : 2 * keys.size : 2] = self.table[keys]
        return row
