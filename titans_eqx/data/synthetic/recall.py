"""In-context recall as MAD defines it (Poli et al., 2024).

Pairs of a key and a value follow each other; a key is always followed by the same value
within an example, and where a key comes again its value is to be predicted. The last
pair is one that has come before.
"""

from dataclasses import dataclass

import numpy as np

from titans_eqx.data.example import Example
from titans_eqx.data.synthetic.task import answered_at


@dataclass(frozen=True, kw_only=True)
class InContextRecall:
    """Keys and values of one token each, in places of two; some are of noise."""

    vocab_size: int  # half of what is no noise are keys, the rest values
    n_pairs: int  # different keys that an example may have
    noise: float  # share of places that are noise
    noise_vocab_size: int  # the last tokens of the vocabulary, in noise only

    @property
    def min_len(self) -> int:
        """One pair twice."""
        return 4

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
        n_symbols, n_places = self.vocab_size - self.noise_vocab_size, seq_len // 2
        n_keys = n_symbols // 2
        keys = rng.permutation(n_keys)[: self.n_pairs]
        values = rng.integers(n_keys, n_symbols, size=self.n_pairs)
        chosen = rng.integers(self.n_pairs, size=n_places)
        is_noise = rng.random(n_places) < self.noise
        is_noise[rng.integers(n_places - 1)] = False  # or nothing could be asked for
        is_noise[-1] = False
        chosen[-1] = rng.choice(chosen[:-1][~is_noise[:-1]])
        tokens = np.zeros(seq_len, int)  # the last one, of an odd length
        places = tokens[: 2 * n_places].reshape(n_places, 2)  # a view
        places[:] = np.stack([keys[chosen], values[chosen]], axis=1)
        if is_noise.any():
            size = int(is_noise.sum()), 2
            places[is_noise] = rng.integers(n_symbols, self.vocab_size, size=size)
        pairs = np.flatnonzero(~is_noise)
        first = np.unique(chosen[pairs], return_index=True)[1]
        again = np.delete(pairs, first)
        return answered_at(tokens, 2 * again, values[chosen[again]])


@dataclass(frozen=True, kw_only=True)
class FuzzyRecall:
    """Keys and values of one to `motif_len` different tokens.

    One key may be the beginning of another, so that where a key ends is known only when
    its value begins. Blanks in front fill an example up.
    """

    vocab_size: int  # keys are of the lower half, values of the upper but the blank
    motif_len: int  # longest key or value, tokens
    min_key_len: int  # shortest key

    @property
    def min_len(self) -> int:
        """The longest pair twice, and where the first one may lie."""
        return 4 * self.motif_len + 1

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
        blank = self.vocab_size - 1
        n_keys = blank // 2

        def motif(first: int, stop: int, min_len: int) -> tuple[int, ...]:
            length = rng.integers(min_len, self.motif_len + 1)
            return tuple((first + rng.permutation(stop - first)[:length]).tolist())

        asked = motif(0, n_keys, self.min_key_len)
        table = {asked: motif(n_keys, blank, 1)}
        n_asked = len(asked) + len(table[asked])
        # The pairs before the last one end so that any of them would have had room.
        stop = seq_len - n_asked - 2 * self.motif_len
        due = rng.integers(max(1, stop - 2 * self.motif_len))
        seen: set[tuple[int, ...]] = set()
        tokens: list[int] = []
        answers: list[int] = []  # places of the tokens that are asked for

        def append(key: tuple[int, ...]) -> None:
            value = table.setdefault(key, motif(n_keys, blank, 1))
            tokens.extend(key)
            if key in seen:
                answers.extend(range(len(tokens), len(tokens) + len(value)))
            tokens.extend(value)
            seen.add(key)

        while len(tokens) < stop:
            is_due = len(tokens) >= due and asked not in seen
            append(asked if is_due else motif(0, n_keys, self.min_key_len))
        append(asked)
        # The last token is predicted, never read.
        n_blanks = seq_len + 1 - len(tokens)
        filled = np.array([blank] * n_blanks + tokens)
        places = n_blanks + np.array(answers)
        return answered_at(filled[:-1], places - 1, filled[places])
