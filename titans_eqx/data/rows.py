"""Rows: whole documents packed into examples, each to be read from a fresh start."""

from typing import Final

import numpy as np

from titans_eqx.data.corpus import AbstractCorpus
from titans_eqx.data.errors import DataError
from titans_eqx.data.example import Example, check_index

MAX_ROWS_AT_ONCE: Final = 2**16


class DocumentRows:
    """Rows filled with one document after the other.

    What does not fit in a row begins the next one, as a document of its own. Nothing is
    left out, and a row is padded only where it has as many documents as it may have, or
    the text ends. The target of a token is the next one of its document; the last token
    has none. The index takes 8 bytes for each row and each document.
    """

    def __init__(
        self,
        corpus: AbstractCorpus,
        seq_len: int,
        max_documents: int,
        *,
        go_on: bool = False,
    ) -> None:
        """Pack a corpus into rows of `seq_len` tokens.

        Args:
            corpus: The documents.
            seq_len: Tokens of a row.
            max_documents: Of a row, at least 1.
            go_on: Whether rows are read one after the other with the state that the
                last one left. Then what begins a row starts no document unless it does
                in the text, and `document_starts` says which.

        Raises:
            DataError: If no token has a next one.
        """
        if corpus.n_tokens < 2:
            raise DataError(
                f"{corpus.name} has {corpus.n_tokens} tokens, one example needs 2: "
                "give more text in data.path (data.eval_path for held-out text)"
            )
        self._corpus = corpus
        self._seq_len = seq_len
        self._max_documents = max_documents
        self._go_on = go_on
        starts = np.unique(corpus.document_starts)
        self._starts = starts[starts < corpus.n_tokens]
        self._bounds = _row_bounds(
            self._starts, corpus.n_tokens, seq_len, max_documents
        )

    @property
    def fill(self) -> float:
        """The share of positions that hold a token."""
        return self._corpus.n_tokens / (len(self) * self._seq_len)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._bounds) - 1

    def __getitem__(self, index: int) -> Example:
        """Read a row: an example with `document_starts`.

        Raises:
            IndexError: If there is no such row.
            DataError: If a file vanished, shrank or cannot be read.
        """
        check_index(index, self)
        begin, end = (int(bound) for bound in self._bounds[index : index + 2])
        is_last = end == self._corpus.n_tokens
        tokens = self._corpus.read(begin, end + (not is_last)).astype(np.int32)
        first, last = np.searchsorted(self._starts, [begin, end], side="right")
        ends = [*(self._starts[first:last] - begin), *[end - begin] * is_last]
        inputs, targets = np.zeros((2, self._seq_len), np.int32)
        inputs[: end - begin] = tokens[: end - begin]
        targets[: len(tokens) - 1] = tokens[1:]
        mask = np.arange(self._seq_len) < end - begin
        mask[np.array(ends, np.int64) - 1] = False
        targets[~mask] = 0
        found = [one for one in ends if one < end - begin]
        if self._go_on and first > 0 and self._starts[first - 1] == begin:
            found = [0, *found]
        n_starts = self._max_documents - (not self._go_on)
        starts = np.full(n_starts, self._seq_len, np.int32)
        starts[: len(found)] = found
        return {
            "inputs": inputs,
            "targets": targets,
            "mask": mask,
            "document_starts": starts,
        }


def _row_bounds(
    starts: np.ndarray, n_tokens: int, seq_len: int, max_documents: int
) -> np.ndarray:
    """Where rows begin, and where the last one ends.

    Many rows are laid out at once, up to the first that has too many documents: it ends
    where one too many would start.
    """
    parts, position, n_rows = [], 0, MAX_ROWS_AT_ONCE
    while position < n_tokens:
        begins = np.arange(position, n_tokens, seq_len)[:n_rows]
        ends = np.minimum(begins + seq_len, n_tokens)
        firsts = np.searchsorted(starts, begins, side="right")
        n_documents = np.searchsorted(starts, ends, side="left") - firsts + 1
        is_over = n_documents > max_documents
        if is_over.any():
            n_whole = int(np.argmax(is_over))
            parts.append(begins[: n_whole + 1])
            position = int(starts[firsts[n_whole] + max_documents - 1])
            n_rows = max(1, n_rows // 2)
        else:
            parts.append(begins)
            position = int(ends[-1])
            n_rows = min(2 * n_rows, MAX_ROWS_AT_ONCE)
    return np.concatenate([*parts, [n_tokens]])
