"""Documents are found by file, folder, glob or list, under names that stay."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from titans_eqx.data import DataError, find_documents
from titans_eqx.data.documents import TextPaths

FILES = {
    "b.txt": b"second",
    "a.txt": b"first",
    "deep/er/c.py": b"third",
    ".hidden.txt": b"no",
    ".git/config": b"no",
    "picture.png": b"\x89PNG\0\0",
    "empty.txt": b"",
}


def names(path: TextPaths) -> list[str]:
    return [one.name for one in find_documents("stdlib", path)]


def test_folder_is_read_recursively_without_hidden_binary_and_empty_files(
    write_files: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert names(write_files(FILES)) == ["a.txt", "b.txt", "deep/er/c.py"]
    assert "passed over: 1 binary, 1 empty, 2 hidden" in caplog.text


def test_file_glob_and_list(write_files: Callable) -> None:
    folder = write_files(FILES)
    assert names(str(folder / "a.txt")) == ["a.txt"]
    assert names(folder / "*.txt") == ["a.txt", "b.txt"]
    assert names(folder / "**" / "*.py") == ["deep/er/c.py"]
    assert names([folder / "deep", folder / "b.txt"]) == ["b.txt", "er/c.py"]


def test_order_and_repetition_of_paths_do_not_matter(write_files: Callable) -> None:
    folder = write_files(FILES)
    paths = [folder, folder / "deep" / "er" / "c.py", folder / "*.txt", folder]
    found = find_documents("stdlib", paths)
    assert found == find_documents("stdlib", paths[::-1])
    assert [one.name for one in found] == ["a.txt", "b.txt", "c.py"]


def test_relative_glob_and_home(
    write_files: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_files(FILES)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    assert names("*.txt") == ["a.txt", "b.txt"]
    assert names("~/a.txt") == ["a.txt"]


def test_existing_file_is_never_read_as_a_glob(write_files: Callable) -> None:
    folder = write_files({"a[1].txt": b"text", "a1.txt": b"other"})
    assert names(folder / "a[1].txt") == ["a[1].txt"]


def test_stdlib_is_python_source_without_its_tests() -> None:
    found = find_documents("stdlib")
    found_names = [one.name for one in found]
    assert found_names == sorted(found_names)
    assert {"argparse.py", "json/decoder.py"} <= set(found_names)
    assert all(name.endswith(".py") for name in found_names)
    folders = {part for name in found_names for part in name.split("/")[:-1]}
    assert not folders & {"test", "tests", "idlelib", "site-packages", "__pycache__"}
    assert sum(one.length for one in found) > 5_000_000


@pytest.mark.parametrize(
    ("name", "message"),
    {
        "missing": ("none.txt", "no such file or folder: .*none.txt"),
        "empty glob": ("*.rst", r"no file matches the glob .*\*\.rst"),
        "glob of no text": ("*.png", "no text in the glob .*passed over: 1 binary"),
        "empty folder": ("void", "no text files in folder .*void"),
        "folder of no text": (".git", "no text files .*passed over: 1 empty"),
        "binary file": ("picture.png", "no text in .*picture.png: the file is binary"),
        "empty file": ("empty.txt", "no text in .*empty.txt: the file is empty"),
        "special file": ("pipe", "pipe is neither a file nor a folder"),
        "broken link": ("link", "link is neither a file nor a folder"),
    }.values(),
)
def test_unusable_path_gives_one_clear_line(
    write_files: Callable, name: str, message: str
) -> None:
    folder = write_files(FILES | {".git/config": b""})
    (folder / "void").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder / "nowhere")
    with pytest.raises(DataError, match=message) as caught:
        find_documents("stdlib", folder / name)
    assert "\n" not in str(caught.value)


def test_one_bad_path_of_a_list_is_an_error(write_files: Callable) -> None:
    folder = write_files(FILES)
    with pytest.raises(DataError, match=r"no such file .*none\.txt"):
        find_documents("stdlib", [folder, folder / "none.txt"])


@pytest.mark.parametrize("paths", [[], [""], ""])
def test_empty_path_is_an_error(paths: TextPaths) -> None:
    with pytest.raises(DataError, match="is empty; name"):
        find_documents("stdlib", paths)


def test_unknown_source_is_an_error() -> None:
    with pytest.raises(DataError, match="'wikipedia' needs data.path, .*'stdlib'"):
        find_documents("wikipedia")


def test_unreadable_file_is_an_error(
    write_files: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_files(FILES)
    real_open = os.open

    # Not chmod: a test run by root may read everything.
    def deny(path: Path, flags: int) -> int:
        if path.name == "b.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, flags)

    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(DataError, match=r"cannot read .*b\.txt: Permission denied"):
        find_documents("stdlib", folder)


def test_chunks_of_a_file_that_changed_raise(write_files: Callable) -> None:
    folder = write_files({"a.txt": b"twelve bytes"})
    (document,) = find_documents("stdlib", folder)
    assert b"".join(document.chunks()) == b"twelve bytes"
    (folder / "a.txt").write_bytes(b"ten")
    with pytest.raises(DataError, match=r"a\.txt has shrunk: 9 bytes are missing"):
        list(document.chunks())
    (folder / "a.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read .*a\.txt: No such file"):
        list(document.chunks())
