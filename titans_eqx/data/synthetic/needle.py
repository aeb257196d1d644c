"""A needle in a haystack, in bytes, after RULER's single needles (Hsieh et al., 2024).

A sentence that tells a key's value is hidden in a text, which ends with a question
about it; only the bytes of the answer are scored.
"""

from dataclasses import dataclass, field
from typing import Final, Literal
from uuid import UUID

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
    """One magic number, code or UUID for one key."""

    needle: Literal["passkey", "number", "word", "uuid"]  # word: a code in hex
    n_digits: int  # of a number; a code has 32 hexadecimal digits, a UUID 4 dashes more
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
        value = self._value(np.random.default_rng(0))
        # The last byte of the answer is predicted, never read.
        return sum(map(len, self._sentences(longest, value))) - 1

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
        key, value = KEYS[rng.integers(len(KEYS))], self._value(rng)
        sentence, question, answer = self._sentences(key, value)
        n_hay = seq_len + 1 - len(sentence) - len(question) - len(answer)
        hay = draw_hay(rng, self.hay, n_hay)
        depth = rng.random() if self.depth == ANYWHERE else self.depth
        cut = split_hay(hay, round(depth * n_hay))
        return answered_at_the_end(hay[:cut] + sentence + hay[cut:] + question, answer)

    def _value(self, rng: np.random.Generator) -> str:
        """The value to be found, always of the same length."""
        if self.needle == "word":
            return rng.bytes(16).hex()
        if self.needle == "uuid":
            return str(UUID(bytes=rng.bytes(16), version=4))
        low = 10 ** (self.n_digits - 1)
        return str(rng.integers(low, 10 * low))

    def _sentences(self, key: str, value: str) -> tuple[bytes, bytes, bytes]:
        noun = {"word": "code", "uuid": "uuid"}.get(self.needle, "number")
        return (
            f"One of the special magic {noun}s for {key} is: {value}. ".encode(),
            f" What is the special magic {noun} for {key}? It is: ".encode(),
            f"{value}.".encode(),
        )
