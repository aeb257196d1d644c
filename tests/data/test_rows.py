"""Rows cut a corpus so that every token but the first is predicted once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from titans_eqx.data import ByteTokenizer, Corpus, DataError, TokenRows, find_documents


def open_bytes(folder: Path, name: str = "the text") -> Corpus:
    return Corpus(find_documents("stdlib", folder), ByteTokenizer(), name=name)


def test_targets_are_the_next_tokens_and_rows_follow_each_other(
    write_files: Callable,
) -> None:
    rows = TokenRows(open_bytes(write_files({"a.txt": b"abcdefgh"})), 3)
    assert len(rows) == 2
    assert rows[0].dtype == np.int32
    read = [[bytes(line.astype(np.uint8)) for line in row] for row in rows]
    assert read == [[b"abc", b"bcd"], [b"def", b"efg"]]


def test_rows_cross_documents(write_files: Callable) -> None:
    folder = write_files({"a.txt": b"ab", "b.txt": b"cd"})
    (row,) = TokenRows(open_bytes(folder), 4)
    assert row.tolist() == [[*b"ab\0c"], [*b"b\0cd"]]


@pytest.mark.parametrize(("n_bytes", "n_rows"), [(5, 1), (8, 1), (9, 2)])
def test_number_of_rows(write_files: Callable, n_bytes: int, n_rows: int) -> None:
    folder = write_files({"a.txt": b"x" * n_bytes})
    assert len(TokenRows(open_bytes(folder), 4)) == n_rows


def test_too_short_a_corpus_names_lengths_and_settings(write_files: Callable) -> None:
    corpus = open_bytes(write_files({"a.txt": b"abcd"}), name="the held-out text")
    message = (
        r"the held-out text has 4 tokens, one row needs 5 \(data.seq_len \+ 1\): "
        "lower data.seq_len or give more text in data.path"
    )
    with pytest.raises(DataError, match=message):
        TokenRows(corpus, 4)
    with pytest.raises(DataError, match="seq_len must be at least 1, got 0"):
        TokenRows(corpus, 0)


@pytest.mark.parametrize("index", [-1, 2])
def test_row_outside_is_refused(write_files: Callable, index: int) -> None:
    rows = TokenRows(open_bytes(write_files({"a.txt": b"abcdefgh"})), 3)
    with pytest.raises(IndexError, match="of 2"):
        rows[index]
