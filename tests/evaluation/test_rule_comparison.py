"""Rules compared by metrics that are written by hand."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from titans_eqx.config import load_config
from titans_eqx.evaluation.comparison import Run
from titans_eqx.evaluation.report import show
from titans_eqx.evaluation.rules import TASKS, RuleComparison

CONFIGS = Path(__file__).parents[2] / "configs"


def write_metrics(folder, score, speed):
    """Of a run that reports after one step, two and four, as if it was measured.

    It had ended after two steps, on other examples than those it reads on the way.
    """
    records = [
        {"step": step, "loss": 1, "tokens_per_second": speed}
        | ({score: step / 10} if step < 4 else {})
        for step in (1, 2, 4)
    ]
    records.insert(2, {"step": 2, score: 0.8})
    records.append({"step": 4, score: 0.4})
    folder.mkdir()
    text = "\n".join(map(json.dumps, records)) + '\n{"step": 4, "lo'
    (folder / "metrics.jsonl").write_text(text)


@pytest.fixture
def by_hand(tmp_path):
    """Runs on two tasks, of four steps of 64, 192, 64 and 192 tokens."""
    changes = [
        "data.lengths=[64, 192]",
        "train.batch_size=1",
        "train.steps=4",
        "optimizer.warmup_steps=1",
    ]
    runs, places = [], {}
    for task, score in (("mqar", "accuracy"), ("text", "bits_per_byte")):
        config = load_config(CONFIGS / TASKS[task][0], changes)
        for rule, speed in (("quick", 64), ("slow", 16)):
            name = f"{rule} on {task}"
            places[name] = rule, task
            write_metrics(tmp_path / name, f"eval_{score}", speed)
            runs.append(Run(name=name, config=config, folder=tmp_path / name))
    return runs, RuleComparison(places)


def test_equal_time_is_that_of_the_fastest(by_hand):
    runs, comparison = by_hand
    table = comparison.table(runs)
    assert [line["score"] for line in table[1:3]] == ["accuracy", "bits per byte"]
    for quick, slow in (table[:2], table[2:]):
        assert (quick["seconds"], slow["seconds"]) == (8, 32)
        assert (quick["equal tokens"], slow["equal tokens"]) == (0.4, 0.4)
        # In four seconds, after which the quick one was evaluated last, the slow one
        # has done one step, in sixteen it will two.
        assert (quick["equal time"], slow["equal time"]) == (0.2, 0.1)
    (alone,) = comparison.table(runs[1:2])
    assert alone["equal time"] == 0.2


def test_another_seed_has_lines_of_its_own(by_hand):
    (first, *_), comparison = by_hand
    runs = [first, dataclasses.replace(first, seed=1)]
    names = [line["rule"] for line in comparison.table(runs)]
    assert names == ["quick", "quick seed 1"]


def test_the_printed_table_is_task_by_task_and_whole_on_80_columns(by_hand):
    runs, comparison = by_hand
    summary = comparison.summary(comparison.table([runs[i] for i in (2, 0, 3, 1)]))
    tasks = [(line["rule"], line["task"]) for line in summary]
    assert tasks == [(run.name.split()[0], run.name.split()[-1]) for run in runs]
    printed = io.StringIO()
    lines = [line | {"rule": "elastic_net", "task": "needle"} for line in summary]
    show(lines, "sweep", Console(file=printed, width=80))
    assert "…" not in printed.getvalue()


def test_what_was_not_measured_is_no_number(by_hand):
    runs, comparison = by_hand
    path = runs[1].folder / "metrics.jsonl"
    assert comparison.is_measured(runs[1])
    _, second, _, fourth, *_ = path.read_text().splitlines()
    path.write_text(f"{second}\n{fourth}\n")  # cut off before the end's evaluation
    assert not comparison.is_measured(runs[1])
    slow = comparison.table(runs)[1]
    assert (slow["equal tokens"], slow["equal time"]) == (None, None)
    assert slow["seconds"] == 32


def test_a_run_whose_metrics_are_lost_has_a_score_alone(by_hand):
    runs, comparison = by_hand
    quick = runs[0].folder / "metrics.jsonl"
    quick.write_text('{"step": 4, "eval_accuracy": 0.4}\n')
    lost, slow, *_ = comparison.table(runs)
    assert lost["equal tokens"] == 0.4
    assert (lost["seconds"], lost["tokens/s"], lost["equal time"]) == (None, None, None)
    assert slow["equal time"] == 0.2
    (alone,) = comparison.table(runs[:1])
    assert (alone["seconds"], alone["equal time"]) == (None, None)


def test_the_picture_has_scores_over_time(by_hand, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: saved.append(self))
    runs, comparison = by_hand
    comparison.plot(runs, "two rules", tmp_path / "picture.png")
    panels = saved[0].axes
    assert [panel.get_title() for panel in panels] == ["mqar", "text"]
    assert [panel.get_ylabel() for panel in panels] == ["accuracy", "bits per byte"]
    for panel in panels:
        quick, slow, mark = (list(line.get_xdata()) for line in panel.lines)
        assert (quick, slow, mark) == ([1, 4], [4, 16], [4, 4])
    (legend,) = saved[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["quick", "slow"]
