"""Results as a table and as JSON."""

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeAlias

from rich.console import Console

from titans_eqx.evaluation.report import show

FILE_WIDTH: Final = 120  # of a table that is not shown on a terminal
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
    rows: list[Row]  # at least one, all with the same columns
    setting: dict[str, Any]  # the model, where a row says nothing else
    device: str
    software: str
    cores: int | None = field(default_factory=os.cpu_count)
    python: str = field(default_factory=platform.python_version)
    machine: str = field(default_factory=platform.machine)

    def to_json(self) -> str:
        """All of it as one JSON object."""
        return json.dumps(asdict(self), indent=2)

    def print(self) -> None:
        """Show the rows, leaving out lists."""
        place = f"{self.device}, {self.cores} cores"
        show(
            [
                {
                    _title(name): _rounded(value)
                    for name, value in row.items()
                    if not isinstance(value, list)
                }
                for row in self.rows
            ],
            f"{self.command}  ({place}; {self.software})",
            Console(width=None if sys.stdout.isatty() else FILE_WIDTH),
        )


def _title(name: str) -> str:
    for part, short in SHORTER.items():
        name = name.replace(part, short)
    return name


def _rounded(value: str | int | float | None) -> str | int | float | None:
    return round(value) if isinstance(value, float) and value >= 1000 else value
