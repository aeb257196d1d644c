"""Token stream: many mapped files read as one long array of tokens.

Nothing is read until it is asked for, and only a bounded number of files is mapped
at a time, so neither memory nor open files grow with the corpus.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from titans_eqx.data.errors import DataError

# numpy keeps a file descriptor per map; some systems allow a process only 256.
MAX_MAPPED_FILES: Final = 64


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of a file that holds tokens back to back.

    Attributes:
        path: The file.
        offset: Its first byte that belongs to the piece.
        length: Number of tokens.
    """

    path: Path
    offset: int
    length: int


class TokenStream:
    """Pieces in order, with one separator token between two neighbours."""

    n_tokens: int

    def __init__(
        self, pieces: Sequence[Piece], *, dtype: np.dtype, separator: int
    ) -> None:
        """Lay out the stream; opens no file.

        Args:
            pieces: At least one, all of the same dtype.
            dtype: How a token is stored.
            separator: Token put between two pieces.
        """
        lengths = np.array([piece.length for piece in pieces], dtype=np.int64)
        self._pieces = tuple(pieces)
        self._ends = np.cumsum(lengths) + np.arange(len(pieces))
        self._starts = self._ends - lengths
        self._dtype = dtype
        self._separator = separator
        self._map: Callable[[Piece], np.memmap] = functools.lru_cache(
            maxsize=MAX_MAPPED_FILES
        )(functools.partial(_map_piece, dtype=dtype))
        self.n_tokens = int(self._ends[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Copy the tokens from `start` to before `stop`.

        Raises:
            IndexError: If the range is not inside the stream.
            DataError: If a file vanished, shrank or cannot be read.
        """
        if not 0 <= start <= stop <= self.n_tokens:
            raise IndexError(
                f"tokens {start} to {stop} are not inside a stream of {self.n_tokens}"
            )
        tokens = np.full(stop - start, self._separator, dtype=self._dtype)
        index = int(np.searchsorted(self._starts, start, side="right")) - 1
        while index < len(self._pieces) and self._starts[index] < stop:
            piece_start = int(self._starts[index])
            first = max(start, piece_start)
            last = min(stop, int(self._ends[index]))
            if first < last:
                mapped = self._checked_map(self._pieces[index])
                tokens[first - start : last - start] = mapped[
                    first - piece_start : last - piece_start
                ]
            index += 1
        return tokens

    def _checked_map(self, piece: Piece) -> np.memmap:
        # Before every read: touching a mapped page that the file no longer has
        # kills the process with a bus error instead of raising.
        needed = piece.offset + piece.length * self._dtype.itemsize
        try:
            size = piece.path.stat().st_size
            if size >= needed:
                return self._map(piece)
        except OSError as error:
            raise DataError(f"cannot read {piece.path}: {error.strerror}") from error
        raise DataError(
            f"{piece.path} has shrunk: {needed} bytes are needed, {size} are there"
        )


def _map_piece(piece: Piece, *, dtype: np.dtype) -> np.memmap:
    return np.memmap(
        piece.path, dtype=dtype, mode="r", offset=piece.offset, shape=(piece.length,)
    )
