"""A needle in a haystack, in bytes, after RULER's single needles (Hsieh et al., 2024).

A sentence that tells a key's value is hidden in a text, and the row ends with a
question about it; only the bytes of the answer are scored.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from titans_eqx.data.synthetic.haystack import NOISE, draw_hay, split_hay
from titans_eqx.data.synthetic.task import check, text_row

ANYWHERE: Final = -1.0
KEYS: Final = (
    "apple bridge candle desert engine forest garden harbor island jungle kettle "
    "lantern market needle orchard palace quarry river silver temple umbrella valley "
    "window yellow"
).split()


@dataclass(frozen=True, kw_only=True)
class Needle:
    """One magic number, or code, for one key."""

    needle: Literal["passkey", "number", "word"] = "passkey"  # word: a code in hex
    n_digits: int = 7  # of a number; a code has 32 hexadecimal digits
    depth: float = ANYWHERE  # 0 = at the beginning, 1 = before the question
    hay: bytes = field(default=NOISE, repr=False)  # text it is hidden in

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            DataError: If one is out of its range.
        """
        check(
            self,
            n_digits=1 <= self.n_digits <= 18,
            depth=self.depth == ANYWHERE or 0 <= self.depth <= 1,
        )

    @property
    def vocab_size(self) -> int:
        """Bytes."""
        return 256

    @property
    def min_len(self) -> int:
        """Sentence, question and answer, with the longest key and no hay."""
        longest = max(KEYS, key=len)
        value = "0" * (32 if self.needle == "word" else self.n_digits)
        # The last byte of the answer is predicted, never read.
        return sum(map(len, self._sentences(longest, value))) - 1

    def row(self, rng: np.random.Generator, seq_len: int) -> np.ndarray:
        """Draw a row; see `Task.row`."""
        key = KEYS[rng.integers(len(KEYS))]
        if self.needle == "word":
            value = rng.bytes(16).hex()
        else:
            low = 10 ** (self.n_digits - 1)
            value = str(rng.integers(low, 10 * low))
        sentence, question, answer = self._sentences(key, value)
        n_hay = seq_len + 1 - len(sentence) - len(question) - len(answer)
        hay = draw_hay(rng, self.hay, n_hay)
        depth = rng.random() if self.depth == ANYWHERE else self.depth
        place = split_hay(hay, round(depth * n_hay))
        parts = [
            (hay[:place] + sentence + hay[place:] + question, False),
            (answer, True),
        ]
        return text_row(parts, seq_len)

    def _sentences(self, key: str, value: str) -> tuple[bytes, bytes, bytes]:
        noun = "code" if self.needle == "word" else "number"
        return (
            f"One of the special magic {noun}s for {key} is: {value}. ".encode(),
            f" What is the special magic {noun} for {key}? It is: ".encode(),
            f"{value}.".encode(),
        )
