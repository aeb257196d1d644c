"""An evaluation on the terminal and as JSON."""

import json
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table as RichTable

from titans_eqx.errors import UserError
from titans_eqx.evaluation.table import Table
from titans_eqx.files import write_durably

REPORT: Final = "results.json"


def show(table: Table, title: str, console: Console | None = None) -> None:
    """Print a table, by default to standard output."""
    rich_table = RichTable(title=title)
    for column in table[0]:
        rich_table.add_column(column, justify="right")
    for line in table:
        rich_table.add_row(*map(_text, line.values()))
    (console or Console()).print(rich_table)


def write_json(content: Any, path: Path) -> None:
    """Write JSON, all of it or nothing.

    Raises:
        UserError: If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(
            f"cannot write to {path.parent}: {error.strerror or error}."
        ) from error


def read_table(path: Path) -> Table:
    """The table of a report."""
    return json.loads(path.read_text(encoding="utf-8"))["table"]


def _text(value: float | int | str | None) -> str:
    if value is None:
        return "-"  # not measured
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
