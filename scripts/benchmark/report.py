"""Results as a table and as JSON."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table

from scripts.benchmark.isolation import Measurement
from scripts.benchmark.options import Options

Row: TypeAlias = dict[str, Any]
"""Name of a column -> text, number or list of numbers."""

SHORTER: Final = {
    "microseconds_per_token": "us/token",
    "time_per_token_over_": "over ",
    "time_over_": "over ",
    "_per_second": "/s",
    "parameters": "params",
    "gflop": "GFLOP",
    "mib": "MiB",
    "_": " ",
}
"""Parts of the names of columns -> what the table says, so that it stays narrow."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a command of the benchmark found."""

    command: str
    rows: list[Row]
    setting: dict[str, Any]  # the model, where a row says nothing else
    device: str
    software: str
    cores: int | None = field(default_factory=os.cpu_count)
    python: str = field(default_factory=platform.python_version)
    machine: str = field(default_factory=platform.machine)

    def to_json(self) -> str:
        """All of it as one JSON object."""
        return json.dumps(asdict(self), indent=2)

    def print(self, console: Console) -> None:
        """Show the rows, leaving out lists.

        Args:
            console: Where to write.
        """
        place = f"{self.device}, {self.cores} cores"
        title = f"{self.command}  ({place}; {self.software})"
        table = Table(title=title, title_justify="left", box=box.SIMPLE)
        columns = [
            name for name, value in self.rows[0].items() if not isinstance(value, list)
        ]
        for name in columns:
            is_text = isinstance(self.rows[0][name], str)
            table.add_column(
                _title(name), justify="left" if is_text else "right", no_wrap=is_text
            )
        for row in self.rows:
            table.add_row(*(_shown(row[name]) for name in columns))
        console.print(table)


def report_of(
    command: str, options: Options, rows: list[Row], measured: Measurement
) -> Report:
    """A report that says where it was measured.

    Args:
        command: Name of the command.
        options: The user's.
        rows: What it found, at least one row, all with the same columns.
        measured: Any measurement of it.

    Returns:
        The report.
    """
    return Report(
        command=command,
        rows=rows,
        setting=options.config().model.model_dump(mode="json"),
        device=measured.facts["device"],
        software=measured.facts["software"],
    )


def columns_of(measured: Measurement) -> Row:
    """The columns that every case has.

    Args:
        measured: What was measured.

    Returns:
        Time, speed and memory.
    """
    return {
        "seconds": measured.seconds,
        "tokens_per_second": measured.tokens_per_second,
        "peak_mib": measured.peak_mib,
        "running_mib": measured.running_mib,
        "runs": list(measured.runs),
    }


def _title(name: str) -> str:
    for part, short in SHORTER.items():
        name = name.replace(part, short)
    return name


def _shown(value: str | int | float) -> str:
    """Whole numbers in full, others to three digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
