"""A measured table on the terminal, as JSON and as a picture."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from titans_eqx.errors import UserError
from titans_eqx.evaluation.measures import Table
from titans_eqx.evaluation.plots import plot_curves, plot_grid


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
    """Write a table into a new folder.

    Args:
        table: The rows.
        meta: What was measured, and how; JSON values, among them `measure`.
        out: Folder to be made.
        with_picture: Whether to draw.

    Raises:
        UserError: If the folder exists or cannot be written, or drawing is impossible.
    """
    try:
        out.mkdir(parents=True)
        text = json.dumps(meta | {"table": table}, indent=1)
        (out / "results.json").write_text(text + "\n", encoding="utf-8")
    except FileExistsError as error:
        raise UserError(f"{out} exists; name a new folder with --out.") from error
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}.") from error
    if with_picture:
        _draw(table, meta["measure"], out / "picture.png")


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
