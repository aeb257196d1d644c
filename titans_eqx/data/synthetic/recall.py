"""In-context recall tasks in the manner of MAD (Poli et al., 2024).

Pairs of a key and a value follow each other; a key is always followed by the same value
within an example, and where a key comes again its value is to be predicted.
"""

from dataclasses import dataclass

import numpy as np

from titans_eqx.data.example import Example
from titans_eqx.data.synthetic.task import answered_at


@dataclass(frozen=True, kw_only=True)
class InContextRecall:
    """Keys and values of one token, with or without noise between the pairs."""

    vocab_size: int  # keys, values, and as many noise tokens as either
    n_pairs: int  # different pairs
    noise: float  # share of tokens that are noise

    @property
    def min_len(self) -> int:
        """One pair twice."""
        return 4

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
        third = self.vocab_size // 3
        keys = rng.permutation(third)[: self.n_pairs]
        values = third + rng.integers(third, size=self.n_pairs)
        tokens = 2 * third + rng.integers(third, size=seq_len)
        seen: set[int] = set()
        queries: list[int] = []
        position = 0
        while position + 1 < seq_len:
            # A pair is two tokens, so it is chosen half as often as noise.
            if rng.random() < 2 * self.noise / (1 + self.noise):
                position += 1
                continue
            pair = int(rng.integers(self.n_pairs))
            tokens[position : position + 2] = keys[pair], values[pair]
            if pair in seen:
                queries.append(position)
            seen.add(pair)
            position += 2
        # In a pair that is asked for, the answer follows as it does everywhere.
        return answered_at(tokens, queries, tokens[[query + 1 for query in queries]])


@dataclass(frozen=True, kw_only=True)
class FuzzyRecall:
    """Keys and values of one to `motif_len` tokens.

    No key is the beginning of another one, so that it is known where a key ends.
    """

    vocab_size: int  # keys are of the lower half, values of the upper
    n_pairs: int  # different pairs
    motif_len: int  # longest key or value, tokens

    @property
    def min_len(self) -> int:
        """The longest pair twice."""
        return 4 * self.motif_len

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
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
        tokens = np.zeros(seq_len + 2 * self.motif_len, int)
        seen: set[int] = set()
        queries: list[int] = []
        position = 0
        while position < seq_len:
            choice = int(rng.integers(self.n_pairs))
            key, value = pairs[choice]
            start = position + len(key)
            stop = start + len(value)
            tokens[position:start] = key
            tokens[start:stop] = value
            # A value that the end of the sequence cuts off is not asked for.
            if choice in seen and stop <= seq_len:
                queries.extend(range(start - 1, stop - 1))
            seen.add(choice)
            position = stop
        answers = tokens[[query + 1 for query in queries]]
        return answered_at(tokens[:seq_len], queries, answers)

    def _motif(self, rng: np.random.Generator, n_tokens: int) -> np.ndarray:
        return rng.integers(n_tokens, size=rng.integers(1, self.motif_len + 1))
