import dataclasses

import pytest

from tests.evaluation.oracle import Oracle
from titans_eqx.config import DataConfig, MqarConfig, RunConfig
from titans_eqx.errors import UserError
from titans_eqx.evaluation import RecallSettings
from titans_eqx.evaluation.recall import plot_recall, recall

CONFIG = RunConfig(
    data=DataConfig(
        source="task", seq_len=64, task=MqarConfig(vocab_size=64, n_pairs=8)
    )
)
SETTINGS = RecallSettings(lengths=(64, 256), n_pairs=(4, 8), n_examples=10)


def test_recall_counts_answers_by_length_pairs_and_distance():
    table = recall(Oracle(4), CONFIG, SETTINGS)
    whole = [line for line in table if line["distance"] == 0]
    assert [(line["length"], line["pairs"]) for line in whole] == [
        (64, 4),
        (64, 8),
        (256, 4),
        (256, 8),
    ]
    for line in whole:
        assert line["cases"] == 10 * line["pairs"]
        assert line["accuracy"] == pytest.approx(0.75, abs=0.02)
        parts = [
            part
            for part in table
            if part["distance"] > 0
            and (part["length"], part["pairs"]) == (line["length"], line["pairs"])
        ]
        assert sum(part["cases"] for part in parts) == line["cases"]
        assert max(part["distance"] for part in parts) <= line["length"]


def test_sizes_take_the_place_of_each_length_with_each_number_of_pairs():
    settings = dataclasses.replace(SETTINGS, sizes=((64, 8), (128, 2)), n_examples=1)
    table = recall(Oracle(4), CONFIG, settings)
    whole = [line for line in table if line["distance"] == 0]
    assert [(line["length"], line["pairs"]) for line in whole] == [(64, 8), (128, 2)]


def test_lengths_and_pairs_are_those_of_the_run_by_default():
    data = DataConfig(
        source="task", seq_len=40, task=MqarConfig(vocab_size=64, n_pairs=5)
    )
    line, *_ = recall(Oracle(2), RunConfig(data=data), RecallSettings(n_examples=2))
    assert (line["length"], line["pairs"]) == (40, 5)


def test_a_run_on_text_is_refused():
    with pytest.raises(UserError, match="a run trained on one of mqar, .*'stdlib'"):
        recall(Oracle(2), RunConfig(), SETTINGS)


def test_picture_has_lengths_along_the_axis(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: saved.append(self))
    table = recall(Oracle(4), CONFIG, dataclasses.replace(SETTINGS, n_examples=1))
    plot_recall(table, "recall of a run", tmp_path / "picture.png")
    (figure,) = saved
    (panel,) = figure.axes
    assert panel.get_xlabel() == "length"
    assert panel.get_title() == "recall of a run"
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["64", "256"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["4 pairs", "8 pairs"]
