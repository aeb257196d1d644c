"""A needle in a haystack, in bytes, after RULER's single needles (Hsieh et al., 2024).

A sentence that tells a key's value is hidden in a text, which ends with a question
about it; only the bytes of the answer are scored.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from titans_eqx.config.task import ANYWHERE
from titans_eqx.data.example import Example
from titans_eqx.data.synthetic.haystack import draw_hay, split_hay
from titans_eqx.data.synthetic.task import answered_at_the_end
from titans_eqx.data.tokenizer import BYTE_VALUES

KEYS: Final = (
    "apple bridge candle desert engine forest garden harbor island jungle kettle "
    "lantern market needle orchard palace quarry river silver temple umbrella valley "
    "window yellow"
).split()


@dataclass(frozen=True, kw_only=True)
class Needle:
    """One magic number, or code, for one key."""

    needle: Literal["passkey", "number", "word"]  # word: a code in hex
    n_digits: int  # of a number; a code has 32 hexadecimal digits
    depth: float  # 0 = at the beginning, 1 = before the question, or ANYWHERE
    hay: bytes = field(repr=False)  # text it is hidden in

    @property
    def vocab_size(self) -> int:
        """Bytes."""
        return BYTE_VALUES

    @property
    def min_len(self) -> int:
        """Sentence, question and answer, with the longest key and no hay."""
        longest = max(KEYS, key=len)
        value = "0" * (32 if self.needle == "word" else self.n_digits)
        # The last byte of the answer is predicted, never read.
        return sum(map(len, self._sentences(longest, value))) - 1

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
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
        cut = split_hay(hay, round(depth * n_hay))
        return answered_at_the_end(hay[:cut] + sentence + hay[cut:] + question, answer)

    def _sentences(self, key: str, value: str) -> tuple[bytes, bytes, bytes]:
        noun = "code" if self.needle == "word" else "number"
        return (
            f"One of the special magic {noun}s for {key} is: {value}. ".encode(),
            f" What is the special magic {noun} for {key}? It is: ".encode(),
            f"{value}.".encode(),
        )
