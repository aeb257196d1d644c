"""The folder that holds everything one run writes, used by one process at a time."""

import fcntl
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Final

from titans_eqx.errors import UserError

LOCK_NAME: Final = "lock"
PREVIOUS_FOLDER: Final = "previous"
CHECKPOINTS_FOLDER: Final = "checkpoints"
PROBE_BYTES: Final = 4096
# Only these are moved away for a fresh start: the folder may hold files of the user.
RESULT_NAMES: Final = (
    CHECKPOINTS_FOLDER,
    "config.toml",
    "metrics.jsonl",
    "metrics.discarded.jsonl",
    "samples.txt",
    "tensorboard",
    "evaluation",
    "inspection",
)


class RunFolderError(UserError):
    """The run folder cannot be used; the message is one line."""


class RunFolder:
    """A locked run folder and the paths in it.

    The lock is the kernel's lock on an open file, so a crash releases it; the file's
    text says who holds it. Some network file systems do not pass such locks on to
    other machines, therefore a text left by another host is not overridden.
    """

    def __init__(self, path: Path) -> None:
        """Make the folder, try a write, and take the lock.

        Args:
            path: The folder; its parents are made too.

        Raises:
            RunFolderError: If the folder cannot be written, or is in use.
        """
        self.path = Path(path).absolute()
        self._lock: int | None = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            _probe_write(self.path)
            self._lock = _take_lock(self.path / LOCK_NAME)
        except OSError as error:
            raise RunFolderError(
                f"cannot write to the run folder {self.path}: "
                f"{error.strerror or error}. Choose another with --run-dir."
            ) from error

    def __enter__(self) -> "RunFolder":
        """Return itself; leaving the block releases the lock."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Release the lock."""
        self.release()

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / CHECKPOINTS_FOLDER

    @property
    def metrics(self) -> Path:
        """File of metrics, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def config(self) -> Path:
        """File of the resolved configuration."""
        return self.path / "config.toml"

    @property
    def samples(self) -> Path:
        """File of the text samples made on the way."""
        return self.path / "samples.txt"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard events."""
        return self.path / "tensorboard"

    def start_fresh(self) -> Path | None:
        """Move the results of earlier runs into ``previous/<n>/``; delete nothing.

        Returns:
            Where they are now, or None if there were none.

        Raises:
            RunFolderError: If they cannot be moved.
        """
        results = [self.path / name for name in RESULT_NAMES]
        results = [result for result in results if result.exists()]
        if not results:
            return None
        number = 1
        while (target := self.path / PREVIOUS_FOLDER / str(number)).exists():
            number += 1
        try:
            target.mkdir(parents=True)
            for result in results:
                result.rename(target / result.name)
        except OSError as error:
            raise RunFolderError(
                f"cannot move earlier results to {target}: {error.strerror or error}."
            ) from error
        return target

    def release(self) -> None:
        """Give the lock back; may be called twice."""
        if self._lock is None:
            return
        # The file stays: unlinking it could take away a lock that a third process
        # has opened meanwhile.
        os.ftruncate(self._lock, 0)
        os.close(self._lock)
        self._lock = None


def _probe_write(folder: Path) -> None:
    """Find out before training whether the folder takes data."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as file:
        file.write(bytes(PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())


def _take_lock(path: Path) -> int:
    """Lock the file and write who holds it; the descriptor keeps the lock."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        holder = os.pread(lock, PROBE_BYTES, 0)
        pid, host = _parse_holder(holder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"the run folder {path.parent} is in use by process {pid} on {host}. "
                "Wait for it, stop it, or choose another with --run-dir."
            ) from None
        if holder and host != socket.gethostname():
            raise RunFolderError(
                f"the run folder {path.parent} was last used by process {pid} on "
                f"{host}, which did not finish. If it is dead, delete {path}."
            )
        os.ftruncate(lock, 0)
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.pwrite(lock, text.encode(), 0)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _parse_holder(text: bytes) -> tuple[str, str]:
    try:
        holder = json.loads(text)
        return str(holder["pid"]), str(holder["host"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "(unknown)", "an unknown host"
