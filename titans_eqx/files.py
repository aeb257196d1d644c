"""Files: read only if they are files, replaced as a whole, tried out, locked.

Everything that a command reads or writes by a name that the user gave goes through
these functions.
"""

import contextlib
import errno
import json
import math
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from filelock import FileLock, Timeout

from titans_eqx.errors import UserError

PROBE_BYTES: Final = 4096
_umask_lock = threading.Lock()


def to_json(content: Any, *, indent: int | None = None) -> bytes:
    """JSON and a line break; null for numbers that are not finite, it has no others."""
    text = json.dumps(plain(content), indent=indent, allow_nan=False)
    return f"{text}\n".encode()


def plain(content: Any) -> Any:
    """With Python's numbers for scalars of arrays, and None for what is not finite."""
    match content:
        case dict():
            return {key: plain(value) for key, value in content.items()}
        case list() | tuple():
            return [plain(value) for value in content]
        case float() if not math.isfinite(content):
            return None
        case _:
            return plain(content.item()) if hasattr(content, "item") else content


def cache_folder() -> Path:
    """The folder of this package in the user's: `$XDG_CACHE_HOME`, else `~/.cache`.

    Raises:
        UserError: If there is no such home folder.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    caches = os.path.expanduser(base)
    if caches.startswith("~"):  # would become a folder of that name right here
        raise UserError(
            f"there is no home folder for {base}; set XDG_CACHE_HOME to a folder that "
            "can be written"
        )
    return Path(caches) / "titans_eqx"


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; pipes and devices, which may never end, are refused.

    Raises:
        OSError: If it is no regular file, or cannot be opened.
    """
    check_name(path)
    # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))


def read_regular(path: Path, max_bytes: int) -> bytes:
    """All of a regular file, as `open_regular` opens it.

    Raises:
        OSError: If it has more bytes, or cannot be read.
    """
    with open_regular(path) as file:
        content = file.read(max_bytes + 1) or b""
    if len(content) > max_bytes:
        reason = f"it has more than {max_bytes:,} bytes, the most that is read"
        raise OSError(errno.EFBIG, reason, str(path))
    return content


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when the block is left.

    A crash leaves the old or the new file, never a mix; an exception leaves the old
    one. Until it is complete, the new file has a random name in the same folder, was
    not there before (no link that somebody else put there is followed) and is readable
    for its owner alone. Then it gets the permissions of the file that it replaces, or
    those of any new file.

    Raises:
        OSError: If it cannot be written.
    """
    check_name(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(descriptor, _final_mode(path))
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    # The rename itself is only durable once the folder's entry is on disk.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file by this content; see `replacing`."""
    with replacing(path) as file:
        file.write(content)


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file that is there, all of it or nothing.

    The file is opened for each call: one that was deleted meanwhile is noticed, rather
    than written to where nobody finds it.

    Raises:
        OSError: If it cannot be written; the error names the path.
    """
    try:
        with path.open("r+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def link_target(path: Path) -> Path:
    """The file that a link leads to, there or not; what is no link is its own."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def probe_output(path: Path, option: str) -> None:
    """Find out before any work whether a file can be written, and leave no trace.

    Folders that are missing are made, and removed again.

    Args:
        path: What will be written, by `replacing` or the like.
        option: What the user would name another file or folder with, such as --out.

    Raises:
        UserError: If it cannot be written.
    """
    made: list[Path] = []
    try:
        check_name(path)
        with contextlib.suppress(FileNotFoundError):
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                raise OSError(errno.EEXIST, "there is something else of this name")
        for folder in reversed(path.parents):
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        probe_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}. Choose another with "
            f"{option}."
        ) from error
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def probe_folder(folder: Path) -> None:
    """Find out whether a folder takes data, and leave no trace.

    Raises:
        OSError: If it does not.
    """
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as file:
        file.write(bytes(PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def locked(path: Path, refusal: UserError) -> Iterator[None]:
    """Hold a lock file, which goes at the end unless it was there before.

    The operating system releases the lock of a process that crashes, whose file stays.

    Raises:
        UserError: The refusal, if somebody else holds it.
        OSError: If the file cannot be made.
    """
    was_there = os.path.lexists(path)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise refusal from None
    try:
        yield
    finally:
        if not was_there:  # before the release, after which it may be another's
            path.unlink(missing_ok=True)
        lock.release()


def check_name(path: Path) -> None:
    """Turn what is no file name at all into an error of the kind that is expected."""
    try:
        is_name = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise OSError(errno.EINVAL, "this is no file name", str(path))


def _final_mode(path: Path) -> int:
    with contextlib.suppress(OSError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            return stat.S_IMODE(status.st_mode)
    # It can only be read by setting it. Until it is restored, files that other threads
    # make are private.
    with _umask_lock:
        mask = os.umask(0o077)
        os.umask(mask)
    return 0o666 & ~mask
