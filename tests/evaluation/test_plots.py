import jax
import jax.numpy as jnp
import numpy as np
import pytest

from titans_eqx.evaluation.inspection import Inspection
from titans_eqx.evaluation.memory_layers import plot_memory_layers
from titans_eqx.evaluation.needle import plot_needle
from titans_eqx.evaluation.perplexity import plot_perplexity
from titans_eqx.evaluation.plots import (
    Panel,
    plot_curves,
    plot_inspection,
    plot_panels,
)
from titans_eqx.evaluation.recall import plot_recall
from titans_eqx.memory import MemoryStats

TITLE = "what it is"


def recalled(lengths, pairs):
    line = {"distance": 0, "accuracy": 0.5}
    return [line | {"length": n, "pairs": p} for n in lengths for p in pairs]


def perplexity(path):
    ends = [32, 64, 128, 200, 200]
    table = [{"context": "all", "to": end, "nats": 2.0 + 1 / end} for end in ends]
    plot_perplexity(table, TITLE, path)


def needle(path):
    depths = (0.0, 0.5, 1.0)
    table = [
        {"length": n, "depth": d, "accuracy": d} for n in (64, 128) for d in depths
    ]
    plot_needle(table, TITLE, path)


def inspection(path):
    rng = np.random.default_rng(0)

    def draw():
        tokens = [
            MemoryStats(
                surprise=jnp.asarray(rng.random(2)),
                gates={"decay": jnp.asarray(rng.random((2, 1)))},
                weight_norm=jnp.asarray(rng.random(2)),
            )
            for _ in range(30)
        ]
        return jax.tree.map(lambda *xs: np.stack(xs), *tokens)

    loss = rng.random(30)
    loss[0] = np.nan
    texts = list("a text of just thirty letters!")
    read = Inspection(jnp.asarray(loss), {1: draw(), 3: draw()})
    plot_inspection(read, texts, path)


def memory_layers(path):
    table = [{"layer": i, "read over stream": i / 10} for i in range(3)]
    plot_memory_layers(table, TITLE, path)


def many(path):
    curves = {f"run {i}": [(64, i / 20), (1024, i / 30)] for i in range(19)}
    plot_curves(curves, "length", "accuracy", TITLE, path, are_shares=True)


def panels(path):
    curves = {f"rule {i}": [(1.0, i / 20), (2.5, i / 30)] for i in range(12)}
    drawn = [
        Panel(title=title, y_label="score", are_shares=are_shares, mark=2.0)
        for title, are_shares in (("mqar", True), ("text", False))
    ]
    for panel in drawn:
        panel.curves.update(curves)
    plot_panels(drawn, "seconds", TITLE, path)


PICTURES = {
    "recall": lambda path: plot_recall(recalled([64, 256], [4, 8]), TITLE, path),
    "recall by pairs": lambda path: plot_recall(recalled([64], [4, 8]), TITLE, path),
    "perplexity": perplexity,
    "needle": needle,
    "inspection": inspection,
    "memory layers": memory_layers,
    "many curves": many,
    "panels": panels,
}


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """A function that draws a picture and returns matplotlib's figure of it."""
    figure = pytest.importorskip("matplotlib.figure")

    def draw(name):
        drawn = []
        save = figure.Figure.savefig

        def keep(self, *arguments, **options):
            save(self, *arguments, **options)
            drawn.append(self)

        monkeypatch.setattr(figure.Figure, "savefig", keep)
        PICTURES[name](tmp_path / "picture.png")
        return drawn[0]

    return draw


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_has_a_title_plain_ticks_and_its_data_in_view(draw, name):
    figure = draw(name)
    titles = [panel.get_title() for panel in figure.axes]
    assert TITLE in titles or figure.get_suptitle()
    for panel in figure.axes:
        ticks = [*panel.get_xticklabels(), *panel.get_yticklabels()]
        assert not [text for text in ticks if "^" in text.get_text()]
        assert panel.get_legend() is None
    for legend in figure.legends:
        place = legend.get_window_extent()
        assert not [p for p in figure.axes if place.overlaps(p.get_window_extent())]
        looks = {
            (line.get_color(), line.get_linestyle()) for line in legend.get_lines()
        }
        assert len(looks) == len(legend.get_lines())


@pytest.mark.parametrize(
    ("name", "label", "ticks", "curves"),
    [
        ("recall", "length", ["64", "256"], ["4 pairs", "8 pairs"]),
        ("recall by pairs", "pairs", ["4", "8"], []),
    ],
)
def test_what_varies_is_along_the_axis(draw, name, label, ticks, curves):
    figure = draw(name)
    (panel,) = figure.axes
    assert panel.get_xlabel() == label
    assert [text.get_text() for text in panel.get_xticklabels()] == ticks
    legends = [text.get_text() for x in figure.legends for text in x.get_texts()]
    assert legends == curves
