"""Copying tasks in the manner of MAD (Poli et al., 2024).

Tokens are shown, then a cue comes as often as there are tokens, and below each cue the
next of them is to be predicted, in their order. The last two ids of the vocabulary are
the blank and the cue.
"""

from dataclasses import dataclass

import numpy as np

from titans_eqx.data.example import Example
from titans_eqx.data.synthetic.task import answered_at


@dataclass(frozen=True, kw_only=True)
class SelectiveCopying:
    """The tokens lie at random positions among blanks."""

    vocab_size: int
    n_copied: int

    @property
    def min_len(self) -> int:
        """Each token twice."""
        return 2 * self.n_copied

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
        shown = seq_len - self.n_copied
        positions = np.sort(rng.permutation(shown)[: self.n_copied])
        return _copying_example(rng, seq_len, self.vocab_size, positions)


@dataclass(frozen=True, kw_only=True)
class Compression:
    """The tokens stand together before the cues, and must all be kept.

    Reading: MAD compresses a sequence into one vector from which an MLP decodes each
    position; here the state of the model is what it is compressed into.
    """

    vocab_size: int
    n_copied: int

    @property
    def min_len(self) -> int:
        """Each token twice."""
        return 2 * self.n_copied

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
        shown = seq_len - self.n_copied
        positions = np.arange(shown - self.n_copied, shown)
        return _copying_example(rng, seq_len, self.vocab_size, positions)


def _copying_example(
    rng: np.random.Generator, seq_len: int, vocab_size: int, positions: np.ndarray
) -> Example:
    blank, cue = vocab_size - 2, vocab_size - 1
    copied = rng.integers(blank, size=positions.size)
    cues = np.arange(seq_len - positions.size, seq_len)
    tokens = np.full(seq_len, blank)
    tokens[positions] = copied
    tokens[cues] = cue
    return answered_at(tokens, cues, copied)
