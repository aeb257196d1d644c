"""In-context recall tasks in the manner of MAD (Poli et al., 2024).

Pairs of a key and a value follow each other; a key is always followed by the same value
within a row, and where a key comes again its value is to be predicted.
"""

from dataclasses import dataclass

import numpy as np

from titans_eqx.data.synthetic.task import check, unscored_row


@dataclass(frozen=True, kw_only=True)
class InContextRecall:
    """Keys and values of one token, with or without noise between the pairs."""

    vocab_size: int = 16  # keys, values, and as many noise tokens as either
    n_pairs: int = 4  # different pairs in a row
    noise: float = 0.0  # share of tokens that are noise

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            DataError: If one is out of its range.
        """
        check(
            self,
            vocab_size=self.vocab_size >= 6,
            n_pairs=1 <= self.n_pairs <= self.vocab_size // 3,
            noise=0 <= self.noise < 1,
        )

    @property
    def min_len(self) -> int:
        """One pair twice."""
        return 4

    def row(self, rng: np.random.Generator, seq_len: int) -> np.ndarray:
        """Draw a row; see `Task.row`."""
        third = self.vocab_size // 3
        keys = rng.permutation(third)[: self.n_pairs]
        values = third + rng.integers(third, size=self.n_pairs)
        row = unscored_row(2 * third + rng.integers(third, size=seq_len))
        seen: set[int] = set()
        place = 0
        while place + 1 < seq_len:
            # A pair is two tokens, so it is chosen half as often as noise.
            if rng.random() < 2 * self.noise / (1 + self.noise):
                place += 1
                continue
            pair = int(rng.integers(self.n_pairs))
            row[0, place : place + 2] = keys[pair], values[pair]
            if pair in seen:
                row[1, place] = values[pair]
            seen.add(pair)
            place += 2
        return row


@dataclass(frozen=True, kw_only=True)
class FuzzyRecall:
    """Keys and values of one to `motif_len` tokens.

    No key is the beginning of another one, so that it is known where a key ends.
    """

    vocab_size: int = 16  # keys from the lower half, values from the upper
    n_pairs: int = 4  # different pairs in a row
    motif_len: int = 3  # longest key or value, tokens

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            DataError: If one is out of its range.
        """
        check(
            self,
            vocab_size=self.vocab_size >= 4,
            # Even with single-token keys there are enough that begin differently.
            n_pairs=1 <= self.n_pairs <= self.vocab_size // 2,
            motif_len=self.motif_len >= 1,
        )

    @property
    def min_len(self) -> int:
        """The longest pair twice."""
        return 4 * self.motif_len

    def row(self, rng: np.random.Generator, seq_len: int) -> np.ndarray:
        """Draw a row; see `Task.row`."""
        half = self.vocab_size // 2
        # Different first tokens make keys that are not beginnings of one another.
        firsts = rng.permutation(half)[: self.n_pairs]
        pairs = [
            (
                np.append(first, self._motif(rng, half)[1:]),
                half + self._motif(rng, half),
            )
            for first in firsts
        ]
        row = unscored_row(np.zeros(seq_len + 2 * self.motif_len, int))
        seen: set[int] = set()
        place = 0
        while place < seq_len:
            choice = int(rng.integers(self.n_pairs))
            key, value = pairs[choice]
            start, stop = place + len(key), place + len(key) + len(value)
            row[0, place:start] = key
            row[0, start:stop] = value
            # A value that the end of the row cuts off is not asked for.
            if choice in seen and stop <= seq_len:
                row[1, start - 1 : stop - 1] = value
            seen.add(choice)
            place = stop
        return row[:, :seq_len]

    def _motif(self, rng: np.random.Generator, n_tokens: int) -> np.ndarray:
        return rng.integers(n_tokens, size=rng.integers(1, self.motif_len + 1))
