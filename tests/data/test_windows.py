"""Windows cut a corpus so that every token but the first is predicted once."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from titans_eqx.data import (
    ByteTokenizer,
    Corpus,
    DataError,
    Dataset,
    TextWindows,
    TrainBatches,
    WindowStreams,
    find_documents,
    spread,
)


def open_bytes(folder: Path, name: str = "the text") -> Corpus:
    return Corpus(find_documents("stdlib", folder), ByteTokenizer(), name=name)


def test_targets_are_the_next_tokens_and_windows_follow_each_other(
    write_files: Callable,
) -> None:
    windows = TextWindows(open_bytes(write_files({"a.txt": b"abcdefgh"})), 3)
    assert isinstance(windows, Dataset)
    assert len(windows) == 2
    read = [
        (bytes(one["inputs"].astype(np.uint8)), bytes(one["targets"].astype(np.uint8)))
        for one in windows
    ]
    assert read == [(b"abc", b"bcd"), (b"def", b"efg")]
    assert {name: x.dtype for name, x in windows[0].items()} == {
        "inputs": np.int32,
        "targets": np.int32,
        "mask": bool,
    }
    assert windows[1]["mask"].tolist() == [True] * 3


def test_windows_cross_documents(write_files: Callable) -> None:
    folder = write_files({"a.txt": b"ab", "b.txt": b"cd"})
    (window,) = TextWindows(open_bytes(folder), 4)
    assert window["inputs"].tolist() == [*b"ab\0c"]
    assert window["targets"].tolist() == [*b"b\0cd"]


@pytest.mark.parametrize(("n_bytes", "n_windows"), [(5, 1), (8, 1), (9, 2)])
def test_number_of_windows(write_files: Callable, n_bytes: int, n_windows: int) -> None:
    folder = write_files({"a.txt": b"x" * n_bytes})
    assert len(TextWindows(open_bytes(folder), 4)) == n_windows


def test_too_short_a_corpus_names_lengths_and_settings(write_files: Callable) -> None:
    corpus = open_bytes(write_files({"a.txt": b"abcd"}), name="the held-out text")
    message = (
        r"the held-out text has 4 tokens, one example needs 5 \(data.seq_len \+ 1\): "
        r"lower data.seq_len \(--length of an evaluation\) or give more text in "
        "data.path"
    )
    with pytest.raises(DataError, match=message):
        TextWindows(corpus, 4)
    with pytest.raises(DataError, match="seq_len must be at least 1, got 0"):
        TextWindows(corpus, 0)


@pytest.mark.parametrize("index", [-1, 2])
def test_window_outside_is_refused(write_files: Callable, index: int) -> None:
    windows = TextWindows(open_bytes(write_files({"a.txt": b"abcdefgh"})), 3)
    with pytest.raises(IndexError, match="of 2"):
        windows[index]


@pytest.mark.parametrize(("count", "starts"), [(1, "a"), (2, "ae"), (9, "aceg")])
def test_examples_are_spread_over_all_there_are(
    write_files: Callable, count: int, starts: str
) -> None:
    windows = TextWindows(open_bytes(write_files({"a.txt": b"abcdefghi"})), 2)
    found = [one["inputs"][0] for one in spread(windows, count)]
    assert bytes(found).decode() == starts


def test_loss_in_bits_counts_the_bytes_of_the_text(write_files: Callable) -> None:
    # 7 bytes, 9 tokens.
    folder = write_files({"a.txt": b"abc", "b.txt": b"de", "c.txt": b"fg"})
    assert open_bytes(folder).bits_per_byte(14 * math.log(2)) == pytest.approx(18)


def test_rows_of_streams_read_on_and_start_anew_together(write_files: Callable) -> None:
    text = bytes(range(97, 97 + 26))
    windows = TextWindows(open_bytes(write_files({"a.txt": text})), 3)
    assert len(windows) == 8
    streams = WindowStreams(windows, 3)  # of two windows each; two are left out
    assert isinstance(streams, Dataset)
    batches = TrainBatches([streams], 3, seed=7, shuffle=False)
    read = [
        [bytes(row.astype(np.uint8)) for row in batches[step]["inputs"]]
        for step in range(3)
    ]
    assert read[0] == [b"abc", b"ghi", b"mno"]
    assert read[1] == [b"def", b"jkl", b"pqr"]
    assert read[2] == read[0]
    resets = [batches[step]["reset"].tolist() for step in range(3)]
    assert resets == [[True] * 3, [False] * 3, [True] * 3]
    # Processes read the rows of their own, in the same streams.
    first, second, third = (
        TrainBatches(
            [streams], 3, seed=0, shuffle=False, process_index=i, process_count=3
        )
        for i in range(3)
    )
    for step in range(3):
        rows = [part[step]["inputs"][0] for part in (first, second, third)]
        np.testing.assert_array_equal(rows, batches[step]["inputs"])


def test_too_few_windows_for_streams_are_refused(write_files: Callable) -> None:
    windows = TextWindows(open_bytes(write_files({"a.txt": b"abcdefgh"})), 3)
    with pytest.raises(DataError, match="2 windows are too few for 3 streams: lower"):
        WindowStreams(windows, 3)
