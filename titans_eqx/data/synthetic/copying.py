"""Copying tasks in the manner of MAD (Poli et al., 2024).

Tokens are shown and then have to be predicted in their order. The last two ids of the
vocabulary are the blank and the cue.
"""

from dataclasses import dataclass

import numpy as np

from titans_eqx.data.example import Example
from titans_eqx.data.synthetic.task import answered_at


@dataclass(frozen=True, kw_only=True)
class SelectiveCopying:
    """The tokens lie among blanks; after a cue they are predicted below blanks.

    As in MAD, each blank chooses one of the tokens that it lies before.
    """

    vocab_size: int
    n_copied: int

    @property
    def min_len(self) -> int:
        """Each token twice, and the cue."""
        return 2 * self.n_copied + 1

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
        n, blank, cue = self.n_copied, self.vocab_size - 2, self.vocab_size - 1
        copied = rng.integers(blank, size=n)
        before = rng.integers(n, size=seq_len - 2 * n - 1)
        tokens = np.full(seq_len, blank)
        tokens[np.arange(n) + np.cumsum(np.bincount(before, minlength=n))] = copied
        tokens[seq_len - n - 1] = cue
        return answered_at(tokens, np.arange(seq_len - n, seq_len), copied)


@dataclass(frozen=True, kw_only=True)
class Compression:
    """The tokens stand together before as many cues, and must all be kept.

    Deviation: MAD compresses a sequence into one vector, from which an MLP decodes each
    position by itself; here the state of the model is what it is compressed into.
    """

    vocab_size: int
    n_copied: int

    @property
    def min_len(self) -> int:
        """Each token twice."""
        return 2 * self.n_copied

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
        n, blank, cue = self.n_copied, self.vocab_size - 2, self.vocab_size - 1
        copied = rng.integers(blank, size=n)
        tokens = np.full(seq_len, blank)
        tokens[seq_len - 2 * n : seq_len - n] = copied
        tokens[seq_len - n :] = cue
        return answered_at(tokens, np.arange(seq_len - n, seq_len), copied)
