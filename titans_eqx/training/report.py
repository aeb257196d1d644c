"""What the user sees of a training run: a live line, or plain lines.

On a terminal one line is kept up to date, and messages and samples scroll by above it.
Anywhere else (a file, a pipe, a scheduler's log) each event is a line of its own.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from titans_eqx.terminal import escape_controls
from titans_eqx.terminal.phase import is_live, print_plain, spell_duration

AVERAGED_EVENTS: Final = 20  # of the plain form's time left
AVERAGED_SECONDS: Final = 600.0  # of the live form's
REFRESHES_PER_SECOND: Final = 2
TAB_WIDTH: Final = 4


class TrainingDisplay:
    """Shows steps, losses, speed, time left and samples of a run."""

    def __init__(
        self,
        total_steps: int,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Choose the live or the plain form from the console."""
        self._total_steps = total_steps
        self._console = Console() if console is None else console
        self._clock = clock
        self._events: deque[tuple[int, float]] = deque(maxlen=AVERAGED_EVENTS)
        self._eval_score: str | None = None
        self._line = ""  # of the latest numbers, on the live line
        self._progress: Progress | None = None
        if is_live(self._console):
            self._progress = Progress(
                TextColumn("{task.description}"),
                _TimeColumn(),
                BarColumn(bar_width=None),
                console=self._console,
                refresh_per_second=REFRESHES_PER_SECOND,
                speed_estimate_period=AVERAGED_SECONDS,
                get_time=clock,
                expand=True,
            )
            self._task = self._progress.add_task(
                "starting", total=total_steps, phase_start=clock()
            )

    def __enter__(self) -> "TrainingDisplay":
        """Start the live line, if there is one."""
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the last state on the screen."""
        if self._progress is not None:
            self._progress.stop()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name what is done until the block ends, with its time."""
        if self._progress is None:
            print_plain(self._console, name)
            yield
            return
        self._progress.update(
            self._task, description=name, phase_start=self._clock(), refresh=True
        )
        yield
        self._progress.update(self._task, description=self._line, phase_start=None)

    def step(self, step: int) -> None:
        """Show that a step is done; `log` adds its numbers."""
        if self._progress is not None:
            line = self._line or f"step {step:,}/{self._total_steps:,}"
            self._progress.update(
                self._task, completed=step, description=line, phase_start=None
            )

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Show the numbers of a step.

        Args:
            step: Number of training steps done.
            metrics: Any of ``loss`` (nats per token), ``bits_per_byte``,
                ``tokens_per_second``, ``utilisation``, and ``eval_bits_per_byte`` or
                else ``eval_accuracy`` (the last one stays on show). Other names are
                not shown.
        """
        if (bits := metrics.get("eval_bits_per_byte")) is not None:
            self._eval_score = f"{float(bits):.3f}"
        elif (accuracy := metrics.get("eval_accuracy")) is not None:
            self._eval_score = f"{float(accuracy):.1%}"
        line = "  ".join(self._describe(step, metrics))
        if self._progress is None:
            self._print_line(line)
        else:
            self._line = escape(line)
            self._progress.update(
                self._task,
                completed=step,
                description=self._line,
                phase_start=None,
                refresh=True,
            )

    def message(self, text: str) -> None:
        """Show a line of text."""
        self._print_line(self._escaped(text))

    def sample(self, step: int, text: str) -> None:
        """Show text that the model has written; control characters are escaped."""
        text = self._escaped(text)
        if self._progress is None:
            lines = "\n".join(f"    {line}" for line in text.split("\n"))
            self._print_line(f"sample at step {step:,}:\n{lines}")
        else:
            title = f"sample at step {step:,}"
            self._console.print(Panel(Text(text), title=title, title_align="left"))

    def _describe(self, step: int, metrics: Mapping[str, Any]) -> list[str]:
        parts = [f"step {step:,}/{self._total_steps:,}"]
        if (loss := metrics.get("loss")) is not None:
            parts.append(f"loss {float(loss):.3f}")
        if (bits := metrics.get("bits_per_byte")) is not None:
            parts.append(f"bits/byte {float(bits):.3f}")
        if self._eval_score is not None:
            parts.append(f"held-out {self._eval_score}")
        if self._progress is None:
            seconds = self._seconds_left(step)
            parts += [] if seconds is None else [f"{spell_duration(seconds)} left"]
        # Last, because a narrow terminal cuts the end of the line.
        if (speed := metrics.get("tokens_per_second")) is not None:
            parts.append(f"{_short_number(float(speed))} tok/s")
        if (utilisation := metrics.get("utilisation")) is not None:
            parts.append(f"MFU {float(utilisation):.1%}")
        return parts

    def _seconds_left(self, step: int) -> float | None:
        """Time to the end at the average speed between the latest events.

        Counted from the first event on, so that compilation before it does not enter.
        By events, and not by seconds as rich does it: lines may be hours apart.
        """
        self._events.append((step, self._clock()))
        first_step, start = self._events[0]
        if step <= first_step:
            return None
        seconds_per_step = (self._events[-1][1] - start) / (step - first_step)
        return max(self._total_steps - step, 0) * seconds_per_step

    def _escaped(self, text: str) -> str:
        return escape_controls(text.expandtabs(TAB_WIDTH), self._console.encoding)

    def _print_line(self, text: str) -> None:
        # Plain text, one line per event however narrow the console is.
        self._console.print(Text(text), soft_wrap=True)
        self._console.file.flush()


class _TimeColumn(ProgressColumn):
    """Time left of the steps, or time spent in a phase."""

    def __init__(self) -> None:
        # A narrow terminal cuts the description, not the time.
        super().__init__(table_column=Column(min_width=10))
        self._remaining = TimeRemainingColumn(compact=True)

    def render(self, task: Task) -> Text:
        """The time of a task that is a run."""
        start = task.fields["phase_start"]
        if start is not None:
            return Text(spell_duration(task.get_time() - start))
        return self._remaining.render(task).append(" left")


def _short_number(number: float) -> str:
    """Three significant digits: 987, 12.3k, 4.56M."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            scaled = number / factor
            decimals = 2 if scaled < 10 else 1 if scaled < 100 else 0
            return f"{scaled:.{decimals}f}{unit}"
    return f"{number:.0f}"
