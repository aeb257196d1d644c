"""`metrics.jsonl`: the numbers of a run, one JSON object per line.

What a resumed run does over again, and a line that a crash has cut off, is moved to
`metrics.discarded.jsonl` beside it, so that no number is lost or counted twice.
"""

import importlib.util
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titans_eqx.errors import UserError
from titans_eqx.files import append, open_regular, plain, to_json, write_durably


class MetricsLog:
    """Appends records; each line is with the operating system when written."""

    def __init__(self, path: Path) -> None:
        """Make the file if it is not there, and move a cut-off last line aside.

        Raises:
            OSError: If the file cannot be written; its folder must exist.
        """
        self.path = Path(path)
        self.discarded_path = self.path.with_suffix(".discarded.jsonl")
        lines = self._lines()
        if lines and not lines[-1].endswith(b"\n"):
            self._replace(kept=lines[:-1], discarded=lines[-1:])
        if not self.path.exists():
            self.path.touch()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line.

        Args:
            record: `step` and numbers by name, Python's or scalars of arrays. A
                number that is not finite is written as null (JSON has no NaN).

        Raises:
            OSError: If the file cannot be written, or is not there any more.
        """
        append(self.path, to_json(dict(record)))

    def truncate_after(self, step: int) -> int:
        """Move lines of later steps aside, and lines that are no JSON object.

        A line without `step` belongs to the line before it.

        Returns:
            The number of lines moved.
        """
        kept: list[bytes] = []
        discarded: list[bytes] = []
        line_step = 0
        for line in self._lines():
            record = _parse(line)
            if record is not None:
                line_step = record.get("step", line_step)
            is_kept = record is not None and line_step <= step
            (kept if is_kept else discarded).append(line)
        if discarded:
            self._replace(kept=kept, discarded=discarded)
        return len(discarded)

    def _lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        with open_regular(self.path) as file:
            return file.read().splitlines(keepends=True)

    def _replace(self, *, kept: list[bytes], discarded: list[bytes]) -> None:
        # Side file first: a crash between the two repeats lines, but loses none.
        with self.discarded_path.open("ab") as file:
            for line in discarded:
                file.write(line.rstrip(b"\r\n") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        write_durably(self.path, b"".join(kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a run, in order; none where there is no file.

    A line that a crash has cut off is left out.
    """
    lines = path.read_bytes().splitlines() if path.exists() else []
    records = map(_parse, lines)
    return [record for record in records if record is not None]


def require_tensorboard() -> None:
    """Refuse to go on without the package that writes event files.

    Raises:
        UserError: If it is missing.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise UserError(
            "TensorBoard output needs the package tensorboardX: "
            "pip install 'titans_eqx[tensorboard]'"
        )


class TensorBoardLog:
    """Mirrors records into a TensorBoard event file (extra `tensorboard`).

    Each record is written before the call returns: tensorboardX's own `SummaryWriter`
    hands it to a thread, and waits forever for one that a full disk has ended.
    """

    def __init__(self, folder: Path, *, first_step: int = 1) -> None:
        """Open a new file; events of earlier runs are hidden from `first_step` on.

        Raises:
            OSError: If it cannot be written.
        """
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2
        from tensorboardX.summary import scalar

        self._folder = folder
        # Made at run time, so that no type checker knows it.
        self._event: Any = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
        self._scalar = scalar
        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        # Also in a new run: TensorBoard ignores the first START that it sees, and hides
        # at later ones what has their step or a larger one.
        start = self._event(wall_time=time.time(), step=first_step)
        start.session_log.status = start.session_log.START
        self._writer.write_event(start)

    def write(self, record: Mapping[str, Any]) -> None:
        """Add the numbers of a record at its `step`.

        Raises:
            OSError: If they cannot be written.
        """
        event = self._event(wall_time=time.time(), step=int(record["step"]))
        for name, value in record.items():
            number = plain(value)
            if name != "step" and isinstance(number, int | float):
                event.summary.MergeFrom(self._scalar(name, number))
        try:
            self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._folder)) from error

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_record = isinstance(record, dict) and isinstance(record.get("step", 0), int)
    return record if is_record else None
