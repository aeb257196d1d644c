"""Checkpoints: steps of arrays and metadata that survive crashes and bad disks.

A step holds named items, each a tree of arrays; whoever reads one names the items it
needs. The steps are written by orbax (`store.py`), which renames a finished one into
place. What it leaves open is added here:

- a manifest of hashes (`manifest.py`) is checked before anything is read: a step
  without one does not count;
- a check of every leaf's path, shape and dtype before, and of its values after reading
  (`document.py`);
- falling back from a damaged step to the one before it, with a report.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jaxtyping import PyTree

from titans_eqx.checkpoint.document import StepDocument
from titans_eqx.checkpoint.errors import (
    CheckpointError,
    DamagedError,
    NoCheckpointError,
)
from titans_eqx.checkpoint.kept import kept
from titans_eqx.checkpoint.store import DOCUMENT_ITEM, StepStore, reason_of
from titans_eqx.checkpoint.together import together
from titans_eqx.sharding.processes import from_primary

MIN_KEPT_STEPS: Final = 2


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What was read back from a checkpoint."""

    step: int
    items: dict[str, PyTree]  # structure, shapes, dtypes and shardings of the templates
    metadata: dict[str, Any]  # as given to save, after a round trip through JSON
    refused: tuple[str, ...] = ()  # one line for each newer step that was damaged


class Checkpoints:
    """The checkpoints of one run, the latest few of them.

    In a run of several processes all call the same methods in the same order.

    Saving returns as soon as the arrays have been copied off the devices (donating
    them to the next training step is safe); a thread writes the rest.
    """

    def __init__(
        self, folder: Path, *, keep: int = MIN_KEPT_STEPS, read_only: bool = False
    ) -> None:
        """Open the folder, and make it unless `read_only`.

        Args:
            folder: Where the steps are, or will be.
            keep: How many of the latest steps to keep, at least 2: the older one is
                what a crash during a save, or a bad disk, leaves to continue from.
            read_only: Change nothing in the folder, not even damaged steps: for
                reading beside a run that is still training.

        Raises:
            CheckpointError: If `keep` is below 2, or the folder cannot be used.
        """
        if keep < MIN_KEPT_STEPS:
            raise CheckpointError(
                f"keep must be at least {MIN_KEPT_STEPS}, got {keep}: a damaged "
                "checkpoint needs an older one to fall back to."
            )
        self.folder = Path(folder).absolute()
        self.read_only = read_only
        try:
            self._store = StepStore(self.folder, keep=keep, read_only=read_only)
        except OSError as error:
            raise CheckpointError(
                f"cannot use the checkpoint folder {self.folder}: {reason_of(error)}."
            ) from error
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: tuple[int, Future[None]] | None = None

    def __enter__(self) -> "Checkpoints":
        """Return itself; leaving the block calls `close`."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Finish the save under way, and close."""
        self.close()

    def steps(self) -> list[int]:
        """The steps in the folder, oldest first, damaged ones included."""
        self.wait()
        return from_primary(self._store.steps)

    def complete_steps(self) -> list[int]:
        """The steps that were written to their end, oldest first; waits for nothing."""
        return self._store.complete_steps()

    def is_empty(self) -> bool:
        """Whether no save has ever been completed here."""
        return set(self.steps()) <= {from_primary(self._store.unfinished_step)}

    def save(
        self, step: int, items: Mapping[str, PyTree], metadata: Mapping[str, Any]
    ) -> None:
        """Save a step; older ones than the latest `keep` are removed after it.

        Args:
            step: Number of training steps done, larger than every saved one.
            items: Trees of arrays by name; of an Equinox module its array half.
            metadata: What JSON can hold, below 16 MiB.

        Raises:
            CheckpointError: If this save cannot start, or the one before has failed.
        """
        if (latest := max(self.steps(), default=-1)) >= step:
            raise CheckpointError(
                f"cannot save step {step} in {self.folder}: step {latest} is there "
                "already. Continue from it, or use another folder."
            )
        try:
            document = StepDocument.of(items, metadata).content()
            self._store.start_write(step, items, document)
        except Exception as error:
            raise self._save_failure(step, error) from error
        self._saving = step, self._worker.submit(self._store.finish_write, step)

    def check_save(self) -> None:
        """Find out, without waiting, whether the save under way has failed.

        Raises:
            CheckpointError: If it has.
        """
        if self._saving is not None and self._saving[1].done():
            self.wait()

    def wait(self) -> None:
        """Block until the save under way is complete, its manifest included.

        Raises:
            CheckpointError: If that save has failed.
        """
        if self._saving is None:
            return
        (step, saving), self._saving = self._saving, None
        try:
            saving.result()
        except Exception as error:
            self._store.reopen()
            raise self._save_failure(step, error) from error

    def restore_latest(self, templates: Mapping[str, PyTree]) -> Restored | None:
        """Read items of the newest step in which they are undamaged.

        Damaged steps newer than it are moved into `corrupt/`, so that training on
        from the older step can save them anew.

        Args:
            templates: For each item to read a tree of arrays or `jax.ShapeDtypeStruct`
                that says structure, shapes, dtypes and shardings; no sharding means
                the first device. Other items are neither read nor checked.

        Returns:
            The step, or None if no save has ever been completed here.

        Raises:
            NoCheckpointError: If all steps are damaged; nothing is moved then.
            CheckpointError: If the newest undamaged one does not fit the templates.
        """
        refused: dict[int, str] = {}
        steps, unfinished = self.steps(), from_primary(self._store.unfinished_step)
        cut_off = "the save was cut off"
        if self.read_only:  # beside a run that may be saving
            cut_off += " or is still under way"
        for step in reversed(steps):
            try:
                items, metadata = self._read_step(step, templates)
            except DamagedError as error:
                reason = f"{cut_off}; " if step == unfinished else ""
                refused[step] = f"step {step} is damaged: {reason}{error}"
            else:
                self._set_aside(refused)
                return Restored(
                    step=step,
                    items=items,
                    metadata=metadata,
                    refused=tuple(refused.values()),
                )
        if not refused.keys() <= {unfinished}:
            raise NoCheckpointError(
                f"no usable checkpoint in {self.folder}: {'; '.join(refused.values())}."
                " titans-train --fresh starts over and keeps these files."
            )
        self._set_aside(refused)
        return None

    def restore(self, step: int, templates: Mapping[str, PyTree]) -> Restored:
        """Read items of one step; `templates` as for `restore_latest`.

        Raises:
            NoCheckpointError: If the step is damaged.
            CheckpointError: If it is not there or does not fit.
        """
        self._require_step(step)
        try:
            items, metadata = self._read_step(step, templates)
        except DamagedError as error:
            raise NoCheckpointError(
                f"step {step} in {self.folder} is damaged: {error}."
            ) from error
        return Restored(step=step, items=items, metadata=metadata)

    def read_metadata(self, step: int | None = None) -> tuple[int, dict[str, Any]]:
        """Read the metadata of a step, and no arrays.

        Args:
            step: A member of ``steps()``; None for the newest whose metadata is whole
                (its arrays may still turn out to be damaged).

        Raises:
            NoCheckpointError: If the step, or each of them, is damaged.
            CheckpointError: If the step is not there.
        """
        if step is not None:
            self._require_step(step)
        damage: list[str] = []
        for candidate in reversed(self.steps()) if step is None else [step]:
            try:
                return candidate, self._read_document(candidate).metadata
            except DamagedError as error:
                damage.append(f"step {candidate} is damaged: {error}")
        raise NoCheckpointError(
            f"no usable checkpoint in {self.folder}: "
            f"{'; '.join(damage) or 'there is none'}."
        )

    def close(self) -> None:
        """Finish the save under way and stop the threads; may be called twice.

        Raises:
            CheckpointError: If that save has failed.
        """
        try:
            self.wait()
        finally:
            self._worker.shutdown()
            self._store.close()

    def _require_step(self, step: int) -> None:
        if step not in (steps := self.steps()):
            raise CheckpointError(
                f"no step {step} in {self.folder}; the steps there are "
                f"{', '.join(map(str, steps)) or 'none'}."
            )

    def _save_failure(self, step: int, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"cannot save step {step} in {self.folder}: {reason_of(error)}. "
            f"{kept(self.complete_steps())}"
        )

    def _set_aside(self, refused: Mapping[int, str]) -> None:
        if self.read_only or not refused:
            return
        try:
            self._store.set_aside(list(refused))
        except OSError as error:
            raise CheckpointError(
                f"cannot move damaged steps of {self.folder}: {reason_of(error)}."
            ) from error

    def _read_document(self, step: int) -> StepDocument:
        together(lambda: self._store.check_files(step, [DOCUMENT_ITEM]))
        return StepDocument.parse(self._store.read_document(step))

    def _read_step(
        self, step: int, templates: Mapping[str, PyTree]
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        together(lambda: self._store.check_files(step, [*templates]))
        document = self._read_document(step)
        if (difference := document.misfit(templates)) is not None:
            raise CheckpointError(
                f"step {step} in {self.folder} does not fit: {difference}. Use the "
                "configuration it was made with, or start over with titans-train "
                "--fresh."
            )
        try:
            items = self._store.read_items(step, templates)
        except Exception as error:
            # The files are as written, so this is not damage: do not fall back.
            raise CheckpointError(
                f"step {step} in {self.folder} is whole but cannot be restored: "
                f"{reason_of(error)}."
            ) from error
        together(lambda: document.check_values(items))
        return items, document.metadata
