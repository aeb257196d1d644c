"""An evaluation on the terminal and as JSON."""

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from titans_eqx.errors import UserError
from titans_eqx.evaluation.table import Table
from titans_eqx.files import read_regular, to_json, write_durably

REPORT: Final = "results.json"
MAX_BYTES: Final = 2**26  # of a report that is read


def show(table: Table, title: str, console: Console | None = None) -> None:
    """Print a table, by default to standard output."""
    rich_table = RichTable(title=escape(title))
    for column in table[0]:
        # A word a line: rich would cut numbers before it breaks a title.
        rich_table.add_column(column.replace(" ", "\n"), justify="right")
    for line in table:
        rich_table.add_row(*map(_text, line.values()))
    (console or Console()).print(rich_table)


def write_json(content: Any, path: Path) -> None:
    """Write JSON, all of it or nothing; null for numbers that are not finite.

    Raises:
        UserError: If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, to_json(content, indent=1))
    except OSError as error:
        raise UserError(
            f"cannot write to {path.parent}: {error.strerror or error}."
        ) from error


class Report(BaseModel):
    """What is read of a report."""

    table: Annotated[Table, Field(min_length=1)]
    settings: dict[str, Any] = {}  # of the evaluation, as JSON
    average: bool | None = None  # of the weights, was read; None: not recorded then


def read_report(path: Path) -> Report:
    """Read a report.

    Raises:
        UserError: If the file is no report.
    """
    try:
        return Report.model_validate_json(read_regular(path, MAX_BYTES))
    except ValidationError as error:
        raise UserError(
            f"{path} is not the result of an evaluation; remove it to evaluate again."
        ) from error


def _text(value: float | int | str | None) -> str:
    if value is None:
        return "-"  # not measured
    if isinstance(value, str):
        return escape(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
