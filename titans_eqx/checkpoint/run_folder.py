"""The folder that holds everything one run writes, used by one process at a time."""

import json
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from titans_eqx.checkpoint.model_folder import CHECKPOINTS_FOLDER, is_exported
from titans_eqx.config import ConfigError, RunConfig, load_config, to_toml
from titans_eqx.errors import UserError
from titans_eqx.files import check_name, open_regular, probe_folder, write_durably
from titans_eqx.sharding.processes import from_primary, is_primary

LOCK_NAME: Final = "lock"
HOLDER_NAME: Final = "lock.holder"
CONFIG_NAME: Final = "config.toml"
METRICS_NAME: Final = "metrics.jsonl"
PREVIOUS_FOLDER: Final = "previous"
MAX_HOLDER_BYTES: Final = 4096
SHARING_SECONDS: Final = 15.0  # in which a file reaches all hosts of a network folder
FLAG: Final = "--run-dir (in a sweep --out)"
FILES: Final = (
    CONFIG_NAME,
    METRICS_NAME,
    "metrics.discarded.jsonl",
    "samples.txt",
)
FOLDERS: Final = (CHECKPOINTS_FOLDER, "tensorboard", "profile")
MEASURED: Final = ("evaluation", "inspection")  # of the weights of some step
# Only these are moved away for a fresh start: the folder may hold files of the user.
RESULT_NAMES: Final = (
    *FILES,
    *FOLDERS,
    *MEASURED,
)


class RunFolderError(UserError):
    """The run folder cannot be used; the message is one line."""


class RunFolder:
    """A locked run folder and the paths in it.

    In a run of several processes, process 0 takes the lock for all of them.

    The operating system releases the lock of a process that crashes. Some network file
    systems do not pass locks on to other machines, so a file beside it names the
    holder, and one left by another host is not overridden.
    """

    def __init__(self, path: Path) -> None:
        """Make the folder with its parents, try a write, and take the lock.

        Raises:
            RunFolderError: If the folder cannot be written, is in use, or is not the
                same for all processes of the run.
        """
        self.path = Path(path).absolute()
        self.checkpoints = self.path / CHECKPOINTS_FOLDER
        self.metrics = self.path / METRICS_NAME
        self.config = self.path / CONFIG_NAME
        self.samples = self.path / "samples.txt"
        self.tensorboard = self.path / "tensorboard"
        self.profile = self.path / "profile"
        self._holder = self.path / HOLDER_NAME
        self._lock: FileLock | None = None
        holder = from_primary(self._open)
        if not is_primary():
            self._find(holder)

    def __enter__(self) -> "RunFolder":
        """Return itself; leaving the block releases the lock."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Release the lock."""
        self.release()

    def start_fresh(self) -> Path | None:
        """Move the results of earlier runs into `previous/<n>/`; delete nothing.

        Returns:
            Where they are now, or None if there were none.

        Raises:
            RunFolderError: If they cannot be moved.
        """
        moved = from_primary(lambda: self._move(RESULT_NAMES))
        return None if moved is None else Path(moved)

    def write_config(self, config: RunConfig, *, is_new: bool) -> Path | None:
        """Write the config of the steps to come, unless the file says the same already.

        One that says something else is only replaced if an earlier part of the run has
        written it. If somebody else has, it is moved into `previous/<n>/`; and if the
        run is new, so are all results there, which must then be another run's. With the
        same config a new run moves what was measured alone: those weights are gone.

        Args:
            config: Of the run.
            is_new: Whether the run goes on from no checkpoint.

        Returns:
            Where they are now, or None if nothing was moved.

        Raises:
            RunFolderError: If they cannot be moved.
            OSError: If the config cannot be written.
        """
        moved = from_primary(lambda: self._write_config(config, is_new))
        return None if moved is None else Path(moved)

    def _write_config(self, config: RunConfig, is_new: bool) -> str | None:
        try:
            there = load_config(self.config)
        except ConfigError:
            there = None
        if there == config:
            # The file stays, perhaps with comments of the user.
            return self._move(MEASURED) if is_new else None
        moved = None
        if is_new:
            # A folder of these names alone may be the user's.
            if any(os.path.lexists(self.path / name) for name in FILES):
                moved = self._move(set(RESULT_NAMES) - {CHECKPOINTS_FOLDER})  # in use
        elif there is None or self.config.read_bytes() != to_toml(there).encode():
            moved = self._move([CONFIG_NAME])
        write_durably(self.config, to_toml(config).encode())
        return moved

    def _move(self, names: Iterable[str]) -> str | None:
        results = [self.path / name for name in names]
        results = [result for result in results if os.path.lexists(result)]
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
        return str(target)

    def check_names(self) -> None:
        """Refuse a folder in which a name of a result is taken by something else.

        Raises:
            RunFolderError: If a file has the name of a folder, or the other way round.
        """
        from_primary(self._check_names)

    def _check_names(self) -> None:
        for names, kind, is_kind in (
            (FILES, "file", Path.is_file),
            (FOLDERS, "folder", Path.is_dir),
        ):
            for path in (self.path / name for name in names):
                if os.path.lexists(path) and not is_kind(path):
                    raise RunFolderError(
                        f"{path} is not a {kind}, and the run needs the name for one. "
                        "Move it away, use --fresh, which keeps it, or choose another "
                        f"{FLAG}."
                    )

    def release(self) -> None:
        """Give the lock back; may be called twice."""
        if self._lock is not None and self._lock.is_locked:
            self._holder.unlink(missing_ok=True)
            self._lock.release()

    def _open(self) -> list[str]:
        """Make the folder and take the lock; returns what the holder's file says."""
        if is_exported(self.path):
            raise RunFolderError(
                f"{self.path} holds an exported model, whose config a run would "
                f"replace. Choose another {FLAG}."
            )
        try:
            check_name(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            probe_folder(self.path)
            self._lock = self._take_lock()
            return list(self._read_holder() or ())
        except OSError as error:
            raise RunFolderError(
                f"cannot write to the run folder {self.path}: "
                f"{error.strerror or error}. Choose another {FLAG}."
            ) from error

    def _find(self, holder: list[str]) -> None:
        """Wait until the folder that process 0 has locked is seen here."""
        end = time.monotonic() + SHARING_SECONDS
        while list(self._read_holder() or ()) != holder:
            if time.monotonic() > end:
                raise RunFolderError(
                    f"the run folder {self.path} is not that of process 0, on "
                    f"{holder[-1]}. Choose a {FLAG} that all hosts share."
                )
            time.sleep(0.1)

    def _take_lock(self) -> FileLock:
        lock = FileLock(self.path / LOCK_NAME)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            pid, host = self._read_holder() or ("(unknown)", "an unknown host")
            raise RunFolderError(
                f"the run folder {self.path} is in use by process {pid} on {host}. "
                f"Wait for it, stop it, or choose another {FLAG}."
            ) from None
        try:
            pid, host = self._read_holder() or (None, socket.gethostname())
            if host != socket.gethostname():
                raise RunFolderError(
                    f"the run folder {self.path} was last used by process {pid} on "
                    f"{host}, which did not finish. If it is dead, delete "
                    f"{self._holder}."
                )
            holder = {"pid": os.getpid(), "host": socket.gethostname()}
            write_durably(self._holder, json.dumps(holder).encode())
        except BaseException:
            lock.release()
            raise
        return lock

    def _read_holder(self) -> tuple[str, str] | None:
        """Process and host, or None without a file; "unknown" if it is unreadable."""
        try:
            with open_regular(self._holder) as file:
                holder = json.loads(file.read(MAX_HOLDER_BYTES))
            return str(holder["pid"]), str(holder["host"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError):
            return "(unknown)", "an unknown host"
