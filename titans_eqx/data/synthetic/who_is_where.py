"""Who is where: facts in the manner of bAbI's first task, hidden in a haystack.

Persons move from place to place, in sentences scattered over a text, which ends by
asking where one of them is; the answer is the last place that person went to.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from titans_eqx.data.example import Example
from titans_eqx.data.synthetic.haystack import draw_hay, split_hay
from titans_eqx.data.synthetic.task import answered_at_the_end
from titans_eqx.data.tokenizer import BYTE_VALUES

PERSONS: Final = ("Mary", "John", "Daniel", "Sandra")
PLACES: Final = ("kitchen", "garden", "office", "hallway", "bedroom", "bathroom")


@dataclass(frozen=True, kw_only=True)
class WhoIsWhere:
    """Moves of four persons between six places."""

    n_pairs: int  # moves
    hay: bytes = field(repr=False)  # text they are hidden in

    @property
    def vocab_size(self) -> int:
        """Bytes."""
        return BYTE_VALUES

    @property
    def min_len(self) -> int:
        """The longest moves, question and answer, with no hay."""
        person, place = max(PERSONS, key=len), max(PLACES, key=len)
        question, answer = _question(person, place)
        moves = self.n_pairs * len(_move(person, place))
        # The last byte of the answer is predicted, never read.
        return moves + len(question) + len(answer) - 1

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example; see `Task.example`."""
        persons = rng.choice(PERSONS, size=self.n_pairs)
        places = rng.choice(PLACES, size=self.n_pairs)
        asked = int(rng.integers(self.n_pairs))
        last = max(i for i, person in enumerate(persons) if person == persons[asked])
        moves = [_move(*move) for move in zip(persons, places, strict=True)]
        question, answer = _question(persons[last], places[last])
        n_hay = seq_len + 1 - sum(map(len, moves)) - len(question) - len(answer)
        hay = draw_hay(rng, self.hay, n_hay)
        text, start = b"", 0
        for depth, move in zip(np.sort(rng.random(len(moves))), moves, strict=True):
            end = split_hay(hay, round(depth * n_hay))
            text += hay[start:end] + move
            start = end
        return answered_at_the_end(text + hay[start:] + question, answer)


def _move(person: str, place: str) -> bytes:
    return f"{person} went to the {place}. ".encode()


def _question(person: str, place: str) -> tuple[bytes, bytes]:
    return f" Where is {person}? In the ".encode(), f"{place}.".encode()
