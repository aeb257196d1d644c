"""Copying tasks in the manner of MAD (Poli et al., 2024).

Tokens are shown, then a cue comes as often as there are tokens, and below each cue the
next of them is to be predicted, in their order.
"""

from dataclasses import dataclass

import numpy as np

from titans_eqx.data.synthetic.task import check, unscored_row


@dataclass(frozen=True, kw_only=True)
class SelectiveCopying:
    """The tokens lie at random places among blanks."""

    vocab_size: int = 16  # the last two tokens are the blank and the cue
    n_copied: int = 16  # tokens to be copied

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            DataError: If one is out of its range.
        """
        check(self, vocab_size=self.vocab_size >= 4, n_copied=self.n_copied >= 1)

    @property
    def min_len(self) -> int:
        """Each token twice."""
        return 2 * self.n_copied

    def row(self, rng: np.random.Generator, seq_len: int) -> np.ndarray:
        """Draw a row; see `Task.row`."""
        shown = seq_len - self.n_copied
        places = np.sort(rng.permutation(shown)[: self.n_copied])
        return _copying_row(rng, seq_len, self.vocab_size, places)


@dataclass(frozen=True, kw_only=True)
class Compression:
    """The tokens stand together at the end of the first half, and must all be kept.

    Reading: MAD compresses a row into one vector from which an MLP decodes each place;
    here the state of the model is what the row is compressed into.
    """

    vocab_size: int = 16  # the last two tokens are the blank and the cue
    n_copied: int = 16  # tokens to be kept

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            DataError: If one is out of its range.
        """
        check(self, vocab_size=self.vocab_size >= 4, n_copied=self.n_copied >= 1)

    @property
    def min_len(self) -> int:
        """Each token twice."""
        return 2 * self.n_copied

    def row(self, rng: np.random.Generator, seq_len: int) -> np.ndarray:
        """Draw a row; see `Task.row`."""
        shown = seq_len - self.n_copied
        places = np.arange(shown - self.n_copied, shown)
        return _copying_row(rng, seq_len, self.vocab_size, places)


def _copying_row(
    rng: np.random.Generator, seq_len: int, vocab_size: int, places: np.ndarray
) -> np.ndarray:
    blank, cue = vocab_size - 2, vocab_size - 1
    copied = rng.integers(blank, size=places.size)
    tokens = np.full(seq_len, blank)
    tokens[places] = copied
    tokens[-places.size :] = cue
    row = unscored_row(tokens)
    row[1, -places.size :] = copied
    return row
