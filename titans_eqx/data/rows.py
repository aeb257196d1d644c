"""Rows: what a model reads and what it should predict, the unit of batches.

A row is an int32 array of shape (2, seq_len): the tokens read, and below each the token
to be predicted once it has been read, or `UNSCORED`.
"""

from typing import Final, Protocol, runtime_checkable

import numpy as np

from titans_eqx.data.corpus import Corpus
from titans_eqx.data.errors import DataError

UNSCORED: Final = -1  # target of a position whose prediction is not looked at


@runtime_checkable
class Rows(Protocol):
    """Any random-access source of equally shaped int32 rows."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def __getitem__(self, index: int) -> np.ndarray:
        """Read a row; the index is in `range(len(self))`."""
        ...


class TokenRows:
    """Windows of a text; the target of each token is the token after it.

    Windows follow each other, so every token but the first is predicted exactly once; a
    last stretch shorter than a row is left out.
    """

    def __init__(self, corpus: Corpus, seq_len: int) -> None:
        """Cut a corpus into rows.

        Args:
            corpus: Where the tokens come from.
            seq_len: Tokens predicted per row, at least 1.

        Raises:
            DataError: If the corpus is too short for one row.
        """
        if seq_len < 1:
            raise DataError(f"data.seq_len must be at least 1, got {seq_len}")
        if corpus.n_tokens < seq_len + 1:
            raise DataError(
                f"{corpus.name} has {corpus.n_tokens} tokens, one row needs "
                f"{seq_len + 1} (data.seq_len + 1): lower data.seq_len or give more "
                "text in data.path (data.eval_path for held-out text)"
            )
        self._corpus = corpus
        self._seq_len = seq_len

    def __len__(self) -> int:
        """Return the number of rows."""
        return (self._corpus.n_tokens - 1) // self._seq_len

    def __getitem__(self, index: int) -> np.ndarray:
        """Read a row.

        Raises:
            IndexError: If there is no such row.
            DataError: If a file vanished, shrank or cannot be read.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        start = index * self._seq_len
        tokens = self._corpus.read(start, start + self._seq_len + 1)
        return np.stack([tokens[:-1], tokens[1:]]).astype(np.int32)
