"""Steps on disk as orbax writes them: items of arrays, and one JSON document.

The only file that knows orbax. In a run of several processes all call the same methods
in the same order; each writes and reads its own parts of the arrays, and process 0 does
all else.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import equinox as eqx
import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree

from titans_eqx.checkpoint.document import MAX_DOCUMENT_BYTES
from titans_eqx.checkpoint.errors import DamagedError
from titans_eqx.checkpoint.leaf_table import abstract_leaf
from titans_eqx.checkpoint.manifest import (
    MANIFEST_NAME,
    check_manifest,
    write_manifest,
)
from titans_eqx.errors import os_reason
from titans_eqx.files import read_regular, write_durably
from titans_eqx.sharding.processes import from_primary, is_primary

DOCUMENT_ITEM: Final = "metadata"
OS_ERROR_CODE: Final = re.compile(r"os_error_code='(\d+)'")
CORRUPT_FOLDER: Final = "corrupt"
# Names the step being saved, from before its first byte until its manifest is there.
SAVING_MARK: Final = "saving"
MAX_MARK_BYTES: Final = 64


class StepStore:
    """Numbered steps in a folder, the latest few of them, written in the background."""

    def __init__(self, folder: Path, *, keep: int, read_only: bool) -> None:
        """Open the folder; unless `read_only`, make it and remove cut-off writes.

        Raises:
            OSError: If the folder cannot be used.
        """
        if read_only and not folder.is_dir():
            raise FileNotFoundError("there is no such folder")
        if not read_only:
            folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._keep = keep
        self._read_only = read_only
        self._manager = self._open_manager()

    def steps(self) -> list[int]:
        """The steps that have a folder, whole or not, oldest first."""
        # From the disk: the manager remembers what another process has since changed.
        return sorted(
            int(entry.name)
            for entry in self.folder.iterdir()
            if entry.name.isdecimal() and entry.is_dir()
        )

    def complete_steps(self) -> list[int]:
        """The steps that were written to their end, oldest first."""
        try:
            return [step for step in self.steps() if self._has_manifest(step)]
        except OSError:  # the folder has gone
            return []

    def step_folder(self, step: int) -> Path:
        """Where a step is kept once it is complete."""
        return self.folder / str(step)

    def start_write(
        self, step: int, items: Mapping[str, PyTree], document: dict[str, Any]
    ) -> None:
        """Copy the arrays off the devices and start writing.

        Raises:
            RuntimeError: If the step is refused, or the store is for reading only.
            Exception: Whatever orbax raises.
        """
        if self._read_only:
            raise RuntimeError("the folder was opened for reading only")
        assert DOCUMENT_ITEM not in items
        saves: dict[str, Any] = {
            name: ocp.args.StandardSave(stored)  # pyright: ignore[reportCallIssue]
            for name, item in items.items()
            if jax.tree.leaves(stored := eqx.filter(item, _has_content))
        }
        saves[DOCUMENT_ITEM] = ocp.args.JsonSave(document)  # pyright: ignore[reportCallIssue]
        if is_primary():
            write_durably(self.folder / SAVING_MARK, str(step).encode())
        if not self._manager.save(step, args=ocp.args.Composite(**saves)):
            raise RuntimeError("orbax refused the step")

    def finish_write(self, step: int) -> None:
        """Block until the step is in place and old ones are gone; write its manifest.

        Raises:
            Exception: Whatever went wrong in the background.
        """
        self._manager.wait_until_finished()  # of all processes
        if not is_primary():
            return
        write_manifest(self.step_folder(step))
        (self.folder / SAVING_MARK).unlink(missing_ok=True)

    def unfinished_step(self) -> int | None:
        """The step whose write was cut off before its manifest was there, if any."""
        try:
            step = int(read_regular(self.folder / SAVING_MARK, MAX_MARK_BYTES))
        except (OSError, ValueError):
            return None
        return None if self._has_manifest(step) else step

    def check_files(self, step: int, items: list[str]) -> None:
        """Compare the files of items of a step with its manifest, in process 0.

        Raises:
            DamagedError: At the first file that is not what was written.
        """
        if is_primary():
            check_manifest(self.step_folder(step), items)

    def read_document(self, step: int) -> dict[str, Any]:
        """Read the JSON document of a step, once its size has been checked.

        Raises:
            DamagedError: If it cannot be read, or is no dictionary.
        """
        folder = self.step_folder(step) / DOCUMENT_ITEM
        size = sum(path.stat().st_size for path in folder.glob("*"))
        if size > 2 * MAX_DOCUMENT_BYTES:
            raise DamagedError(
                f"{DOCUMENT_ITEM} has {size} bytes, more than is ever written"
            )
        try:
            restored = self._restore(step, {DOCUMENT_ITEM: ocp.args.JsonRestore()})
        except (Exception, RecursionError) as error:
            raise DamagedError(f"{DOCUMENT_ITEM} cannot be read: {error}") from error
        document = restored[DOCUMENT_ITEM]
        if not isinstance(document, dict):
            raise DamagedError(f"{DOCUMENT_ITEM} is not a dictionary")
        return document

    def read_items(
        self, step: int, templates: Mapping[str, PyTree]
    ) -> dict[str, PyTree]:
        """Read the items that have a template onto its shardings, and no others.

        Raises:
            Exception: Whatever orbax raises.
        """
        stored, empty = eqx.partition(dict(templates), _has_content)
        restored = stored | self._restore(
            step,
            {
                name: ocp.args.StandardRestore(item)  # pyright: ignore[reportCallIssue]
                for name, item in jax.tree.map(abstract_leaf, stored).items()
                if jax.tree.leaves(item)
            },
        )
        return eqx.combine(restored, jax.tree.map(_zeros, empty))

    def set_aside(self, steps: list[int]) -> None:
        """Move steps into the folder `corrupt`, so that later writes can use the names.

        Raises:
            OSError: If they cannot be moved.
        """
        from_primary(lambda: self._move_aside(steps))
        self.reopen()

    def _move_aside(self, steps: list[int]) -> None:
        (self.folder / CORRUPT_FOLDER).mkdir(exist_ok=True)
        for step in steps:
            target = self.folder / CORRUPT_FOLDER / str(step)
            copies = 1
            while target.exists():
                copies += 1
                target = target.with_name(f"{step}-{copies}")
            self.step_folder(step).rename(target)

    def reopen(self) -> None:
        """Look at the disk anew, after a failed write or a moved step."""
        # A failed manager goes on naming the failed step, and says so when closed.
        with contextlib.suppress(Exception):
            self._manager.close()
        self._manager = self._open_manager()

    def close(self) -> None:
        """Stop the threads; nothing may be under way."""
        self._manager.close()

    def _open_manager(self) -> ocp.CheckpointManager:
        policies = ocp.checkpoint_managers
        # Named, the processes meet at barriers of the runtime. Otherwise they would
        # meet in computations on their devices, some of them started by threads.
        everyone = set(range(jax.process_count())) if jax.process_count() > 1 else None
        return ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.LatestN(self._keep),
                save_decision_policy=policies.FixedIntervalPolicy(1),
                cleanup_tmp_directories=not self._read_only,
                create=False,
                read_only=self._read_only,
                # Orbax reads the times of all steps, which nothing here needs, and
                # raises at damage. A save that reports a preemption does need them.
                lightweight_initialize=self._read_only or self._is_damaged(),
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    active_processes=everyone
                ),
            ),
        )

    def _is_damaged(self) -> bool:
        """Whether orbax's own metadata of some step are not as they were written."""
        try:
            for step in self.steps():
                check_manifest(self.step_folder(step), [])
        except DamagedError:
            return True
        return False

    def _has_manifest(self, step: int) -> bool:
        return (self.step_folder(step) / MANIFEST_NAME).exists()

    def _restore(self, step: int, items: dict[str, Any]) -> dict[str, Any]:
        if not items:
            return {}
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return {name: restored[name] for name in items}


def reason_of(error: BaseException) -> str:
    """What an error says, on one line.

    Of what the operating system refuses only its reason: tensorstore reports it at
    great length, in terms of files of its own.
    """
    if code := OS_ERROR_CODE.search(str(error)):
        return os.strerror(int(code[1]))
    if isinstance(error, OSError):
        return os_reason(error)
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _zeros(leaf: Array | jax.ShapeDtypeStruct) -> Array:
    leaf = abstract_leaf(leaf)
    return jax.make_array_from_callback(
        leaf.shape, leaf.sharding, lambda _: np.zeros(leaf.shape, leaf.dtype)
    )


def _has_content(leaf: Array | jax.ShapeDtypeStruct) -> bool:
    """False for arrays of no numbers, which orbax refuses (no persistent tokens)."""
    return leaf.size > 0
