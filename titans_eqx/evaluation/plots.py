"""Pictures of an evaluation (extra `plots`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from titans_eqx.errors import UserError
from titans_eqx.evaluation.inspection import SYMBOLS, Inspection
from titans_eqx.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Number: TypeAlias = float | int

COLUMNS: Final = 100  # tokens in a line of coloured text
MAX_LINES: Final = 30  # lines of coloured text; the curves show the whole text
DOTS_PER_INCH: Final = 120
SHARES: Final = (-0.03, 1.03)  # limits of an axis


def plot_inspection(inspection: Inspection, texts: list[str], path: Path) -> None:
    """Draw a text coloured by surprise, and curves of every layer below it.

    Args:
        inspection: Of the text.
        texts: The text of each token.
        path: Where to write the picture (PNG).

    Raises:
        UserError: If matplotlib is missing or the file cannot be written.
    """
    plt = _pyplot()
    curves = _curves(inspection)
    n_lines = min(-(-len(texts) // COLUMNS), MAX_LINES)
    height = 0.18 * n_lines + 0.6
    figure, axes = plt.subplots(
        1 + len(curves),
        1,
        figsize=(14, height + 1.6 * len(curves)),
        height_ratios=[height, *[1.6] * len(curves)],
        layout="constrained",
    )
    _colour_text(axes[0], _mean_surprise(inspection), texts, n_lines)
    curves_of_layers = []
    for panel, (name, lines) in zip(axes[1:], curves.items(), strict=True):
        for label, values in lines.items():
            panel.plot(values, label=label, linewidth=0.8)
        panel.set_ylabel(name)
        # The same for all, though the first token has no loss.
        panel.set_xlim(0, max(len(texts) - 1, 1))
        if len(lines) > 1:
            curves_of_layers = panel.get_lines()
    axes[-1].set_xlabel("token")
    if curves_of_layers:
        figure.legend(handles=curves_of_layers, loc="outside right upper")
    figure.suptitle(f"Memories while reading {len(texts):,} tokens")
    _save(figure, path)


def require_plots() -> None:
    """Raise a UserError, before any work, if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise UserError(
            "pictures need the package 'matplotlib': pip install 'titans_eqx[plots]', "
            "or use --no-picture."
        )


def _pyplot() -> Any:
    require_plots()
    import matplotlib

    matplotlib.use("Agg")  # writes files, needs no screen
    import matplotlib.pyplot as plt

    return plt


def _looks() -> Any:
    """Colours of curves, with another dash where they begin anew."""
    plt = _pyplot()
    return plt.cycler(linestyle=["-", "--", ":"]) * plt.rcParams["axes.prop_cycle"]


def _save(figure: "Figure", path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    except OSError as error:
        raise UserError(
            f"cannot write to {path.parent}: {error.strerror or error}."
        ) from error
    finally:
        _pyplot().close(figure)


def _mean_surprise(inspection: Inspection) -> np.ndarray:
    return np.mean(
        [np.mean(layer.surprise, axis=1) for layer in inspection.layers.values()],
        axis=0,
    )


def _curves(inspection: Inspection) -> dict[str, dict[str, np.ndarray]]:
    """Lines by panel, each a mean over heads and memory layers."""
    panels = {"loss (nats)": {"loss": np.asarray(inspection.loss)}}
    for number, stats in inspection.layers.items():
        gates = {SYMBOLS.get(name, name): gate for name, gate in stats.gates.items()}
        values = {"surprise |u|": stats.surprise, **gates}
        for name, value in (values | {"memory norm |M|": stats.weight_norm}).items():
            mean = np.mean(np.reshape(value, (len(inspection.loss), -1)), axis=1)
            panels.setdefault(name, {})[f"layer {number}"] = mean
    return panels


def _colour_text(
    panel: "Axes", surprise: np.ndarray, texts: list[str], n_lines: int
) -> None:
    grid = np.full(n_lines * COLUMNS, np.nan)
    shown = min(len(texts), grid.size)
    grid[:shown] = surprise[:shown]
    image = panel.imshow(grid.reshape(n_lines, COLUMNS), aspect="auto", cmap="Reds")
    panel.figure.colorbar(image, ax=panel, label="surprise |u|", pad=0.01)
    for i, text in enumerate(texts[:shown]):
        # A dollar sign would start a formula.
        visible = text if text.isprintable() else "·"
        panel.text(
            i % COLUMNS,
            i // COLUMNS,
            visible.replace("$", r"\$"),
            ha="center",
            va="center",
            fontsize=6,
            family="monospace",
        )
    panel.set_axis_off()


def plot_curves(
    curves: Mapping[str, Sequence[tuple[Number, Number]]],
    x_label: str,
    y_label: str,
    title: str,
    path: Path,
    *,
    are_shares: bool = False,
    is_log: bool = True,
) -> None:
    """Draw curves.

    Args:
        curves: Points by name.
        x_label: What is along the horizontal axis.
        y_label: What is along the vertical axis.
        title: Above the picture.
        path: Where to write the picture (PNG).
        are_shares: Whether the vertical axis is from 0 to 1.
        is_log: Whether the horizontal axis is logarithmic.

    Raises:
        UserError: If matplotlib is missing or the file cannot be written.
    """
    plt = _pyplot()
    figure, panel = plt.subplots(figsize=(8, 4.5), layout="constrained")
    panel.set_prop_cycle(_looks())
    for name, points in curves.items():
        panel.plot(*zip(*points, strict=True), marker="o", label=name)
    xs = sorted({x for points in curves.values() for x, _ in points})
    if is_log:
        panel.set_xscale("log", base=2)
    panel.set_xticks(xs, [f"{x:,.0f}" for x in xs], rotation=45, fontsize="small")
    panel.minorticks_off()
    if are_shares:
        panel.set_ylim(SHARES)
    panel.set_xlabel(x_label)
    panel.set_ylabel(y_label)
    panel.set_title(title)
    if len(curves) > 1:
        figure.legend(loc="outside right upper")
    _save(figure, path)


@dataclass(kw_only=True)
class Panel:
    """Curves that share an axis."""

    title: str
    y_label: str
    are_shares: bool  # whether the vertical axis is from 0 to 1
    mark: Number | None  # place on the horizontal axis, drawn as a line
    curves: dict[str, Sequence[tuple[Number, Number]]] = field(default_factory=dict)


def plot_panels(
    panels: Sequence[Panel],
    x_label: str,
    title: str,
    path: Path,
    *,
    is_log: bool = False,
) -> None:
    """Draw curves in panels side by side; a name has the same colour in all.

    Args:
        panels: At least one.
        x_label: What is along the horizontal axes.
        title: Above the picture.
        path: Where to write the picture (PNG).
        is_log: Whether the horizontal axes are logarithmic.

    Raises:
        UserError: If matplotlib is missing or the file cannot be written.
    """
    plt = _pyplot()
    size = (1.5 + 4.5 * len(panels), 4.5)
    figure, row = plt.subplots(
        1, len(panels), figsize=size, layout="constrained", squeeze=False
    )
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    looks = dict(zip(names, cycle(_looks())))
    lines = {}
    for axes, panel in zip(row[0], panels, strict=True):
        for name, points in panel.curves.items():
            xs, ys = [x for x, _ in points], [y for _, y in points]
            (lines[name],) = axes.plot(xs, ys, marker=".", **looks[name])
        if panel.mark is not None:
            axes.axvline(panel.mark, color="grey", linestyle=":")
        if is_log:
            axes.set_xscale("log", base=2)
        if panel.are_shares:
            axes.set_ylim(SHARES)
        axes.set_title(panel.title)
        axes.set_xlabel(x_label)
        axes.set_ylabel(panel.y_label)
    figure.suptitle(title)
    figure.legend(lines.values(), lines.keys(), loc="outside right upper")
    _save(figure, path)


def plot_grid(
    cells: Mapping[tuple[Number, Number], Number],
    x_label: str,
    y_label: str,
    title: str,
    path: Path,
) -> None:
    """Draw a heat map of shares.

    Args:
        cells: A share in [0, 1] for each place along the two axes.
        x_label: What is along the horizontal axis.
        y_label: What is along the vertical axis.
        title: Above the picture.
        path: Where to write the picture (PNG).

    Raises:
        UserError: If matplotlib is missing or the file cannot be written.
    """
    plt = _pyplot()
    xs, ys = (sorted({cell[axis] for cell in cells}) for axis in (0, 1))
    grid = [[cells.get((x, y), np.nan) for x in xs] for y in ys]
    size = (3 + 0.9 * len(xs), 1.8 + 0.5 * len(ys))
    figure, panel = plt.subplots(figsize=size, layout="constrained")
    image = panel.imshow(grid, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    panel.set_xticks(range(len(xs)), [f"{x:,}" for x in xs])
    panel.set_yticks(range(len(ys)), [f"{y:g}" for y in ys])
    panel.set_xlabel(x_label)
    panel.set_ylabel(y_label)
    panel.set_title(title, wrap=True)
    for y, line in enumerate(grid):
        for x, value in enumerate(line):
            colour = "white" if abs(value - 0.5) > 0.35 else "black"
            text = f"{100 * value:.0f}"
            panel.text(x, y, text, ha="center", va="center", color=colour)
    figure.colorbar(image, ax=panel, label="share found")
    _save(figure, path)
