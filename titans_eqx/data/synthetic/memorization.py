"""Memorisation as MAD defines it (Poli et al., 2024).

A fixed table from keys to values, the same in all examples and never shown: the weights
of the model must learn it. It measures what a memory must not be needed for.
"""

from dataclasses import dataclass

import numpy as np

from titans_eqx.data.example import Example
from titans_eqx.data.synthetic.task import answered_at


@dataclass(frozen=True, kw_only=True)
class Memorization:
    """Keys, each followed by a blank below which the key's value is to be predicted."""

    vocab_size: int  # the last token is the blank; half of the others are keys
    table_seed: int

    @property
    def min_len(self) -> int:
        """A key and a blank."""
        return 2

    @property
    def table(self) -> np.ndarray:
        """The value of each key, each of another one."""
        n_keys = (self.vocab_size - 1) // 2
        n_values = self.vocab_size - 1 - n_keys
        rng = np.random.default_rng(self.table_seed)
        return n_keys + rng.permutation(n_values)[:n_keys]

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
        keys = rng.integers(self.table.size, size=seq_len // 2)
        tokens = np.full(seq_len, self.vocab_size - 1)
        tokens[0 : 2 * keys.size : 2] = keys
        return answered_at(tokens, np.arange(1, 2 * keys.size, 2), self.table[keys])
