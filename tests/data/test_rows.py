"""Documents are packed into rows; nothing is left out, and nothing is padded."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from titans_eqx.data import (
    AbstractCorpus,
    ByteTokenizer,
    Corpus,
    DataError,
    Dataset,
    DocumentRows,
    find_documents,
)


class ListedDocuments(AbstractCorpus):
    """Documents of given lengths, whose tokens are 1, 2, 3, ..."""

    name = "the text"

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = lengths

    @property
    def n_tokens(self) -> int:
        return sum(self._lengths)

    @property
    def document_starts(self) -> np.ndarray:
        return np.cumsum([0, *self._lengths])

    def read(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start <= stop <= self.n_tokens
        return np.arange(start + 1, stop + 1, dtype=np.int32)


@given(
    lengths=st.lists(st.integers(0, 9), max_size=30).filter(lambda x: sum(x) > 1),
    seq_len=st.integers(1, 12),
    max_documents=st.integers(1, 4),
)
def test_rows_hold_all_tokens_in_order_and_predict_within_documents(
    lengths, seq_len, max_documents
):
    corpus = ListedDocuments(lengths)
    rows = DocumentRows(corpus, seq_len, max_documents)
    assert isinstance(rows, Dataset)
    starts = set(corpus.document_starts.tolist())
    seen = []
    for index in range(len(rows)):
        row = rows[index]
        n_real = np.count_nonzero(row["inputs"])
        real = row["inputs"][:n_real]
        seen += real.tolist()
        # A token is the number of tokens up to it, where the next document may start.
        has_next = ~np.isin(real, list(starts))
        np.testing.assert_array_equal(row["mask"][:n_real], has_next)
        assert not row["mask"][n_real:].any()
        np.testing.assert_array_equal(
            row["targets"], np.where(row["mask"], row["inputs"] + 1, 0)
        )
        inside = [i for i in range(1, n_real) if int(real[i]) - 1 in starts]
        places = max_documents - 1
        assert row["document_starts"].tolist() == [
            *inside,
            *[seq_len] * (places - len(inside)),
        ]
        # Padded only where another document would be one too many, or the text ends.
        is_full = len(inside) == places and int(real[-1]) in starts
        assert n_real == seq_len or is_full or index == len(rows) - 1
    assert seen == list(range(1, corpus.n_tokens + 1))
    assert rows.fill == len(seen) / (len(rows) * seq_len)


def test_a_row_of_files(write_files: Callable) -> None:
    """The separator is the last token of a document."""
    folder = write_files({"a.txt": b"ab", "b.txt": b"cde", "c.txt": b"fg"})
    corpus = Corpus(find_documents("stdlib", folder), ByteTokenizer())
    first, second = DocumentRows(corpus, 5, 3)
    assert bytes(first["inputs"].astype(np.uint8)) == b"ab\0cd"
    assert bytes(first["targets"].astype(np.uint8)) == b"b\0\0de"
    assert first["mask"].tolist() == [True, True, False, True, True]
    assert first["document_starts"].tolist() == [3, 5]
    assert bytes(second["inputs"].astype(np.uint8)) == b"e\0fg\0"
    assert second["mask"].tolist() == [True, False, True, False, False]
    assert second["document_starts"].tolist() == [2, 5]
    assert {name: x.dtype for name, x in first.items()} == {
        "inputs": np.int32,
        "targets": np.int32,
        "mask": bool,
        "document_starts": np.int32,
    }


def test_rows_that_go_on_say_where_they_do_not() -> None:
    """A place more says that a document starts with the row."""
    corpus = ListedDocuments([3, 6, 1, 1, 4])
    rows = DocumentRows(corpus, 5, 2, go_on=True)
    found = [
        (row["inputs"].tolist(), row["document_starts"].tolist())
        for row in map(rows.__getitem__, range(len(rows)))
    ]
    assert found == [
        ([1, 2, 3, 4, 5], [0, 3]),
        ([6, 7, 8, 9, 10], [4, 5]),
        ([11, 12, 13, 14, 15], [0, 1]),
    ]


def test_a_text_of_one_token_is_refused() -> None:
    with pytest.raises(DataError, match="the text has 1 tokens, one example needs 2"):
        DocumentRows(ListedDocuments([1]), 4, 2)
