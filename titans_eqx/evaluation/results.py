"""A measured table on the terminal, as JSON and as a picture."""

import json
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table as RichTable

from titans_eqx.errors import UserError
from titans_eqx.evaluation.measures import Table
from titans_eqx.evaluation.plots import plot_curves, plot_grid
from titans_eqx.checkpoint.durable import write_durably

RESULTS: Final = "results.json"


def show(table: Table, title: str, console: Console | None = None) -> None:
    """Print a table.

    Args:
        table: The rows.
        title: What was measured.
        console: Where to; None for standard output.
    """
    rich_table = RichTable(title=title)
    for column in table[0]:
        rich_table.add_column(column, justify="right")
    for row in table:
        rich_table.add_row(*map(_text, row.values()))
    (console or Console()).print(rich_table)


def write(table: Table, meta: dict[str, Any], out: Path, *, with_picture: bool) -> None:
    """Write a table into a folder.

    Args:
        table: The rows.
        meta: What was measured, and how; JSON values, among them `measure`.
        out: The folder.
        with_picture: Whether to draw.

    Raises:
        UserError: If the folder cannot be written, or drawing is impossible.
    """
    text = json.dumps(meta | {"table": table}, indent=1) + "\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if with_picture:
            _draw(table, meta["measure"], out / "picture.png")
        # Last and at once: where it is, the measurement is complete.
        write_durably(out / RESULTS, text.encode())
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}.") from error


def _draw(table: Table, measure: str, path: Path) -> None:
    match measure:
        case "perplexity":
            curve = {"model": [(row["to"], row["nats"]) for row in table[:-1]]}
            plot_curves(curve, "position", "nats per token", path)
        case "recall":
            curves: dict[str, list[tuple[float, float]]] = {}
            for row in table:
                if row["distance"] == 0:
                    name = f"length {row['length']}"
                    curves.setdefault(name, []).append((row["pairs"], row["accuracy"]))
            plot_curves(curves, "pairs", "accuracy", path)
        case _:
            cells = {(row["length"], row["depth"]): row["accuracy"] for row in table}
            plot_grid(cells, "length", "depth", path)


def _text(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
