"""Text in which something is hidden."""

from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import numpy as np

from titans_eqx.data.errors import DataError
from titans_eqx.files import read_regular

MAX_HAYSTACK_BYTES: Final = 2**28
NOISE: Final = (
    b"The grass is green. The sky is blue. The sun is yellow. Here we go. There and "
    b"back again. "
)


@runtime_checkable
class HidesInText(Protocol):
    """A task that hides something in a text, which its `repr` does not show."""

    @property
    def hay(self) -> bytes:
        """The text."""
        ...


def read_haystack(path: str) -> bytes:
    """The text of a file, or noise sentences if the path is empty.

    Raises:
        DataError: If the file cannot be read or is empty.
    """
    if not path:
        return NOISE
    try:
        text = read_regular(Path(path), MAX_HAYSTACK_BYTES)
    except OSError as error:
        raise DataError(
            f"cannot read data.task.haystack {path}: {error.strerror or error}"
        ) from error
    if not text:
        raise DataError(f"data.task.haystack {path} is empty")
    return text


def draw_hay(rng: np.random.Generator, text: bytes, n_bytes: int) -> bytes:
    """Part of a text from a random start on, over and over if it is too short."""
    start = int(rng.integers(len(text)))
    repeats = -(-(start + n_bytes) // len(text))
    return (text * repeats)[start : start + n_bytes]


def split_hay(hay: bytes, position: int) -> int:
    """Where to hide something: the last end of a sentence, or of a word, before here.

    Returns:
        A position at or before the given one; that one if there is no end before it.
    """
    for end in (b". ", b" "):
        found = hay.rfind(end, 0, position)
        if found >= 0:
            return found + len(end)
    return position
