"""Text in which something is hidden."""

from typing import Final

import numpy as np

from titans_eqx.data.errors import DataError

NOISE: Final = (
    b"The grass is green. The sky is blue. The sun is yellow. Here we go. There and "
    b"back again. "
)


def read_haystack(path: str) -> bytes:
    """The text of a haystack.

    Args:
        path: File with the text; empty for noise sentences.

    Returns:
        The text.

    Raises:
        DataError: If the file cannot be read or is empty.
    """
    if not path:
        return NOISE
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise DataError(
            f"cannot read data.task.haystack {path}: {error.strerror or error}"
        ) from error
    if not text:
        raise DataError(f"data.task.haystack {path} is empty")
    return text


def draw_hay(rng: np.random.Generator, text: bytes, length: int) -> bytes:
    """A piece of a text, from a random start on, over and over if it is too short.

    Args:
        rng: Where the start comes from.
        text: The text.
        length: Bytes in the piece.

    Returns:
        The piece.
    """
    start = int(rng.integers(len(text)))
    repeats = -(-(start + length) // len(text))
    return (text * repeats)[start : start + length]


def split_hay(hay: bytes, place: int) -> int:
    """The last end of a sentence (or of a word) up to a place, to hide something at.

    Args:
        hay: The text.
        place: Where it should be hidden, in bytes.

    Returns:
        A place at or before it; the place itself if there is no end before it.
    """
    for end in (b". ", b" "):
        found = hay.rfind(end, 0, place)
        if found >= 0:
            return found + len(end)
    return place
