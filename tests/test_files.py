import os
import resource
import stat
import threading
from pathlib import Path

import pytest

from tests.refusal import assert_refused
from titans_eqx.errors import UserError
from titans_eqx.files import (
    append,
    locked,
    open_regular,
    probe_output,
    read_regular,
    replacing,
    write_durably,
)

DEVICES = ("/dev/zero", "/dev/null", "/dev/random")


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_pipe_or_a_device_is_refused_at_once(pipe, tmp_path):
    for path in (pipe, *map(Path, DEVICES)):
        with pytest.raises(OSError, match="a pipe or a device, not a file"):
            open_regular(path)
    link = tmp_path / "link"
    link.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="a pipe or a device"):
        read_regular(link, 10)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")


def test_more_than_the_limit_is_not_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes, the most that is read"):
        read_regular(path, 4)
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_regular(path, 4)


def test_what_is_appended_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one\n")
    append(path, b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        with pytest.raises(OSError, match=f"File too large: '{path}'"):
            append(path, b"three\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"one\ntwo\n"


def test_appending_to_a_file_that_was_removed_is_an_error(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError, match=str(path)):
        append(path, b"one")
    assert not path.exists()


@pytest.mark.parametrize("name", ["a\0b", "\ud900", "a" * 400, "a/" * 2600])
def test_what_is_no_name_is_an_error_of_the_usual_kind(tmp_path, name):
    path = tmp_path / name
    for use in (open_regular, lambda path: write_durably(path, b"")):
        with pytest.raises(OSError, match=r"no file name|too long"):
            use(path)
    assert_refused(probe_output, path, "--out", message="another with --out.")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_as_a_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "file"
    write_durably(path, b"old")
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"

    def write_half():
        with replacing(path) as file:
            file.write(b"half of it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_private_while_it_is_written_and_usual_after(tmp_path):
    old = os.umask(0o027)
    try:
        with replacing(tmp_path / "file"):
            (partial,) = tmp_path.iterdir()
            assert mode(partial) == 0o600
        assert mode(tmp_path / "file") == 0o640
        (tmp_path / "file").chmod(0o600)  # as its owner wants it
        write_durably(tmp_path / "file", b"")
        assert mode(tmp_path / "file") == 0o600
        threads = [
            threading.Thread(target=write_durably, args=(tmp_path / str(i), b""))
            for i in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {mode(tmp_path / str(i)) for i in range(20)} == {0o640}
    finally:
        assert os.umask(old) == 0o027


def test_no_link_that_was_laid_out_is_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("file", "file.partial", ".file.partial"):
        (folder / name).symlink_to(victim)
    write_durably(folder / "file", b"new")
    assert victim.read_bytes() == b"precious"
    assert (folder / "file").read_bytes() == b"new"
    assert not (folder / "file").is_symlink()


def test_a_probe_leaves_nothing_behind(tmp_path):
    probe_output(tmp_path / "new" / "newer" / "file", "--out")
    (tmp_path / "old").write_bytes(b"old")
    probe_output(tmp_path / "old", "--out")
    assert list(tmp_path.iterdir()) == [tmp_path / "old"]
    assert (tmp_path / "old").read_bytes() == b"old"


def test_a_probe_finds_what_stands_in_the_way(tmp_path, pipe):
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path, "there is something else of this name. Choose another with --out."),
        (pipe, "there is something else of this name"),
        (tmp_path / "file" / "new", "Not a directory"),
        (Path("/proc/new"), "cannot write /proc/new: "),
        (Path("/dev/null"), "there is something else of this name"),
    ):
        assert_refused(probe_output, path, "--out", message=message)
    if os.geteuid() != 0:  # the administrator may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        path = tmp_path / "locked" / "new" / "file"
        assert_refused(probe_output, path, "--out", message="Permission denied")


def test_a_lock_is_held_by_one_and_leaves_no_trace(tmp_path):
    lock, refusal = tmp_path / "lock", UserError("in use")
    for _ in range(2):
        with locked(lock, refusal):
            with pytest.raises(UserError, match="in use"), locked(lock, refusal):
                pass
            assert lock.exists()
        assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_before_the_lock_stays(tmp_path):
    (tmp_path / "lock").write_text("the user's")
    with locked(tmp_path / "lock", UserError("in use")):
        pass
    assert (tmp_path / "lock").read_text() == "the user's"
