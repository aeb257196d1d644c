"""Who is where: facts in the manner of bAbI's first task, hidden in a haystack.

Persons move from place to place, in sentences scattered over a text, and the row ends
by asking where one of them is; the answer is the last place that person went to.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from titans_eqx.data.synthetic.haystack import NOISE, draw_hay, split_hay
from titans_eqx.data.synthetic.task import check, text_row

PERSONS: Final = ("Mary", "John", "Daniel", "Sandra")
PLACES: Final = ("kitchen", "garden", "office", "hallway", "bedroom", "bathroom")


@dataclass(frozen=True, kw_only=True)
class WhoIsWhere:
    """Moves of four persons between six places."""

    n_pairs: int = 6  # moves in a row
    hay: bytes = field(default=NOISE, repr=False)  # text they are hidden in

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            DataError: If one is out of its range.
        """
        check(self, n_pairs=self.n_pairs >= 1)

    @property
    def vocab_size(self) -> int:
        """Bytes."""
        return 256

    @property
    def min_len(self) -> int:
        """The longest moves, question and answer, with no hay."""
        person, place = max(PERSONS, key=len), max(PLACES, key=len)
        question, answer = _question(person, place)
        moves = self.n_pairs * len(_move(person, place))
        # The last byte of the answer is predicted, never read.
        return moves + len(question) + len(answer) - 1

    def row(self, rng: np.random.Generator, seq_len: int) -> np.ndarray:
        """Draw a row; see `Task.row`."""
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
        parts = [(text + hay[start:] + question, False), (answer, True)]
        return text_row(parts, seq_len)


def _move(person: str, place: str) -> bytes:
    return f"{person} went to the {place}. ".encode()


def _question(person: str, place: str) -> tuple[bytes, bytes]:
    return f" Where is {person}? In the ".encode(), f"{place}.".encode()
