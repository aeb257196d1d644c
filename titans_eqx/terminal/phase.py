"""What a command is doing: a live line with its time, or a plain line each."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

PLAIN_SECONDS: Final = 10.0  # between plain lines of a phase that counts
_START: Final = time.monotonic()  # about that of the process


@contextmanager
def phase(
    name: str, *, total: int | None = None, console: Console | None = None
) -> Iterator[Callable[[int], None]]:
    """Name what is being done until the block ends, at once and with its time.

    Args:
        name: What is being done, such as "reading the text".
        total: Of what is counted, if something is.
        console: Where to; the standard output by default.

    Yields:
        A function that counts so many more as done.
    """
    console = Console() if console is None else console
    if not is_live(console):
        yield _PlainCount(console, name, total)
        return
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    ]
    if total is not None:
        columns += [
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(compact=True),
        ]
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(escape(name), total=total)
        yield lambda count: progress.advance(task, count)


def is_live(console: Console) -> bool:
    """Whether a line of the console can be kept up to date."""
    return console.is_terminal and not console.is_dumb_terminal


def print_plain(console: Console, text: str) -> None:
    """Print one line with the time since the start, however narrow the console is."""
    line = f"[{spell_duration(time.monotonic() - _START)}] {text}"
    console.print(Text(line), soft_wrap=True)
    console.file.flush()


def spell_duration(seconds: float) -> str:
    """Minutes and seconds, with hours or days where there are some."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours}:{minute:02}:{second:02}"
    return f"{minute}:{second:02}"


class _PlainCount:
    """Counts what is done in lines some seconds apart."""

    def __init__(self, console: Console, name: str, total: int | None) -> None:
        self._console, self._name, self._total = console, name, total
        self._done, self._printed_at = 0, time.monotonic()
        print_plain(console, name)

    def __call__(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._total is not None and now - self._printed_at >= PLAIN_SECONDS:
            self._printed_at = now
            progress = f"{self._done:,} of {self._total:,}"
            print_plain(self._console, f"{self._name}: {progress}")
