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
from titans_eqx.files import open_regular

# numpy keeps a file descriptor per map; some systems allow a process only 256.
MAX_MAPPED_FILES: Final = 64


@dataclass(frozen=True, kw_only=True)
class FileRange:
    """A range of a file that holds tokens back to back."""

    path: Path
    offset: int  # of its first byte
    length: int  # in tokens


class TokenStream:
    """Ranges of files in order."""

    n_tokens: int
    starts: np.ndarray  # index of the first token of each range, int64

    def __init__(
        self,
        ranges: Sequence[FileRange],
        *,
        dtype: np.dtype,
        separator: int | None = None,
    ) -> None:
        """Lay out the stream of at least one range; opens no file.

        Args:
            ranges: Where the tokens are.
            dtype: Of the tokens.
            separator: A token put between two neighbours; None puts none.
        """
        lengths = np.array([one.length for one in ranges], dtype=np.int64)
        self._ranges = tuple(ranges)
        self._ends = np.cumsum(lengths)
        if separator is not None:
            self._ends += np.arange(len(ranges))
        self.starts = self._ends - lengths
        self._dtype = dtype
        self._separator = 0 if separator is None else separator
        self._map: Callable[[FileRange], np.memmap] = functools.lru_cache(
            maxsize=MAX_MAPPED_FILES
        )(functools.partial(_map_range, dtype=dtype))
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
        index = int(np.searchsorted(self.starts, start, side="right")) - 1
        while index < len(self._ranges) and self.starts[index] < stop:
            range_start = int(self.starts[index])
            first = max(start, range_start)
            last = min(stop, int(self._ends[index]))
            if first < last:
                mapped = self._checked_map(self._ranges[index])
                tokens[first - start : last - start] = mapped[
                    first - range_start : last - range_start
                ]
            index += 1
        return tokens

    def _checked_map(self, one: FileRange) -> np.memmap:
        # Before every read: touching a mapped page that the file no longer has
        # kills the process with a bus error instead of raising.
        needed = one.offset + one.length * self._dtype.itemsize
        try:
            size = one.path.stat().st_size
            if size >= needed:
                return self._map(one)
        except OSError as error:
            raise DataError(f"cannot read {one.path}: {error.strerror}") from error
        raise DataError(
            f"{one.path} has shrunk: {needed} bytes are needed, {size} are there"
        )


def _map_range(one: FileRange, *, dtype: np.dtype) -> np.memmap:
    with open_regular(one.path) as file:
        return np.memmap(
            file, dtype=dtype, mode="r", offset=one.offset, shape=(one.length,)
        )
