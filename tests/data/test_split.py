"""The split looks at each document's own name, and leaves no side empty."""

from collections.abc import Callable
from pathlib import Path

import pytest

from titans_eqx.data import DataError, Document, find_documents, split_documents


def document(name: str) -> Document:
    return Document(name=name, path=Path("/", name), offset=0, length=10)


MANY = tuple(document(f"chapter_{number}.txt") for number in range(1000))


def test_split_is_a_partition_of_about_the_asked_size() -> None:
    train, eval_side = split_documents(MANY, 0.1)
    assert set(train) | set(eval_side) == set(MANY)
    assert not set(train) & set(eval_side)
    assert 70 < len(eval_side) < 130


def test_split_does_not_depend_on_order() -> None:
    train, eval_side = split_documents(MANY, 0.1)
    again_train, again_eval_side = split_documents(MANY[::-1], 0.1)
    assert again_train == train[::-1]
    assert again_eval_side == eval_side[::-1]


def test_adding_documents_moves_no_other() -> None:
    _, eval_side = split_documents(MANY[:300], 0.1)
    _, more_eval_side = split_documents(MANY, 0.1)
    assert set(more_eval_side) & set(MANY[:300]) == set(eval_side)


def test_moving_the_folder_changes_nothing() -> None:
    moved = tuple(
        Document(name=one.name, path=Path("/moved", one.name), offset=0, length=10)
        for one in MANY
    )
    names = {one.name for one in split_documents(MANY, 0.1)[1]}
    assert {one.name for one in split_documents(moved, 0.1)[1]} == names


def test_larger_fraction_holds_out_a_superset() -> None:
    _, small = split_documents(MANY, 0.05)
    _, large = split_documents(MANY, 0.2)
    assert set(small) < set(large)


@pytest.mark.parametrize("n_documents", range(2, 12))
@pytest.mark.parametrize("eval_fraction", [0.0001, 0.05, 0.5, 0.9999])
def test_no_side_is_empty(n_documents: int, eval_fraction: float) -> None:
    few = MANY[:n_documents]
    train, eval_side = split_documents(few, eval_fraction)
    assert train
    assert eval_side
    assert split_documents(few[::-1], eval_fraction) == (train[::-1], eval_side[::-1])


@pytest.mark.parametrize("is_twin", [True, False])
def test_two_documents_give_one_to_each_side(is_twin: bool) -> None:
    name = "chapter_0.txt" if is_twin else "chapter_1.txt"
    other = Document(name=name, path=Path("/other"), offset=0, length=10)
    train, eval_side = split_documents((MANY[0], other), 0.05)
    assert {len(train), len(eval_side)} == {1}


def test_end_of_a_single_file_is_held_out(write_files: Callable) -> None:
    folder = write_files({"book.txt": b"0123456789" * 20})
    train, eval_side = split_documents(find_documents("stdlib", folder), 0.05)
    assert b"".join(train[0].chunks()) == b"0123456789" * 19
    assert b"".join(eval_side[0].chunks()) == b"0123456789"


@pytest.mark.parametrize("eval_fraction", [0.2, 0.3, 0.4, 0.5, 0.6])
def test_single_file_is_not_cut_inside_a_character(
    write_files: Callable, eval_fraction: float
) -> None:
    text = "統計😀é"
    folder = write_files({"book.txt": text.encode()})
    train, eval_side = split_documents(find_documents("stdlib", folder), eval_fraction)
    parts = [b"".join(side[0].chunks()).decode() for side in (train, eval_side)]
    assert "".join(parts) == text
    assert all(parts)


def test_single_byte_cannot_be_split(write_files: Callable) -> None:
    folder = write_files({"book.txt": b"x"})
    with pytest.raises(DataError, match=r"book\.txt is too short to split \(1 bytes"):
        split_documents(find_documents("stdlib", folder), 0.5)


@pytest.mark.parametrize("eval_fraction", [0.0, 1.0, -0.1, float("nan")])
def test_fraction_outside_the_open_interval_is_refused(eval_fraction: float) -> None:
    with pytest.raises(DataError, match="eval_fraction must be between 0 and 1, got"):
        split_documents(MANY, eval_fraction)


def test_nothing_cannot_be_split() -> None:
    with pytest.raises(DataError, match="no documents"):
        split_documents((), 0.5)
