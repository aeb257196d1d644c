"""Accuracies over seeds, the best of a grid, and pictures, from reports by hand."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
import scipy.stats
from rich.console import Console

from titans_eqx.config import load_config
from titans_eqx.errors import UserError
from titans_eqx.evaluation import essays, mad, states, suites, zoology
from titans_eqx.evaluation.accuracy import AccuracySettings
from titans_eqx.evaluation.comparison import EvaluationComparison, Run
from titans_eqx.evaluation.models_on_tasks import AccuracyComparison, Picture
from titans_eqx.evaluation.report import show, write_json
from titans_eqx.evaluation.sizes import model_sizes
from titans_eqx.evaluation.suites import suite

CONFIGS = Path(__file__).parents[2] / "configs"
COMPARISON = AccuracyComparison(
    settings=AccuracySettings(),
    columns={
        f"{model} at {rate}": {"model": model, "task": "copy", "learning rate": rate}
        for model in ("lmm", "mac")
        for rate in (0.001, 0.01)
    },
    picture=Picture(panels=("task",), curves=("model",), x="learning rate"),
    grid=("learning rate",),
    published=(
        {"task": "copy", "learning rate": 0.01, "published": 0.5},
        {"task": "other", "published": 0.4},
    ),
)


@pytest.fixture
def reported(tmp_path):
    """A function that makes a measured run of an accuracy."""
    config = load_config(CONFIGS / "recall" / "lmm.toml", ["train.steps=50"])

    def make(name, seed, accuracy):
        run = Run(
            name=name, seed=seed, config=config, folder=tmp_path / f"{name} {seed}"
        )
        path = run.folder / "evaluation" / "accuracy-at-50" / "results.json"
        # 25 examples with two cases each, which count for 40 and for 30 independent.
        both = {"length": 64, "cases": 50}
        lines = [
            {**both, "depth": 0.0, "accuracy": accuracy + 0.1, "independent": 40.0},
            {**both, "depth": 1.0, "accuracy": accuracy - 0.1, "independent": 30.0},
        ]
        settings = dataclasses.asdict(COMPARISON.settings)
        write_json({"settings": settings, "table": lines}, path)
        return run

    return make


@pytest.fixture
def runs(reported):
    """The first seed prefers a large step for lmm, and has no preference for mac."""
    return [
        reported("lmm at 0.001", 0, 0.4),
        reported("lmm at 0.01", 0, 0.6),
        reported("mac at 0.001", 0, 0.3),
        reported("lmm at 0.001", 1, 0.9),
        reported("lmm at 0.01", 1, 0.7),
        reported("lmm at 0.01", 2, 0.5),
    ]


def test_the_best_with_the_first_seed_is_kept_and_others_make_its_mean(runs):
    table = COMPARISON.table(runs)
    assert [line["kept"] for line in table] == [False, True, True]
    best, alone = table[1:]
    interval = scipy.stats.ttest_1samp([0.7, 0.5], 0).confidence_interval()
    assert best["accuracy"] == pytest.approx(0.6)
    assert interval.low < 0 < 1 < interval.high
    assert (best["low"], best["high"]) == (0, 1)
    assert (best["over"], best["seeds"], best["published"]) == ("seeds", 2, 0.5)
    assert alone["published"] is None
    # Of 100 cases, 30 of them right, that count for 70, 21 of them right.
    wilson = scipy.stats.binomtest(21, 70).proportion_ci(method="wilson")
    assert (alone["low"], alone["high"]) == pytest.approx((wilson.low, wilson.high))
    assert (alone["accuracy"], alone["over"], alone["cases"]) == (0.3, "examples", 100)
    summary = COMPARISON.summary(table)
    kept = [(line["model"], line["95 % low high"]) for line in summary]
    assert kept == [("lmm 0.01", "0.000 1.000"), ("mac 0.001", "0.205 0.415")]


def test_the_printed_table_of_a_grid_is_whole_on_80_columns():
    chosen = suite("mad", CONFIGS, seeds=1)
    assert isinstance(chosen.comparison, AccuracyComparison)
    results = {"kept": True, "length": 128, "accuracy": 0.98765, "low": 0.9, "high": 1}
    (*_, name) = (name for name in chosen.comparison.columns if "selective" in name)
    published = {"paper LMM": 0.994, "paper attention": 0.959}
    line = dict(chosen.comparison.columns[name]) | results | published
    printed = io.StringIO()
    summary = chosen.comparison.summary([line])
    show(summary, "sweep", Console(file=printed, width=80))
    assert "…" not in printed.getvalue()
    assert "0.9877" in printed.getvalue()


def test_a_report_of_an_earlier_version_is_refused(reported):
    run = reported("lmm at 0.01", 0, 0.5)
    (path,) = run.folder.rglob("results.json")
    path.write_text(path.read_text().replace('"independent"', '"other"'))
    with pytest.raises(UserError, match="of an earlier version.*remove it"):
        COMPARISON.table([run])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"n_examples": 7}}, "n_examples was 7, is 64; "),
        ({"average": True}, "average was True, is False; "),
    ],
)
def test_a_report_of_another_evaluation_is_refused(reported, changes, message):
    run = reported("lmm at 0.01", 0, 0.5)
    (path,) = run.folder.rglob("results.json")
    report = json.loads(path.read_text())
    settings = report["settings"] | changes.get("settings", {})
    path.write_text(json.dumps(report | changes | {"settings": settings}))
    for use in (COMPARISON.is_measured, lambda run: COMPARISON.table([run])):
        with pytest.raises(UserError, match=f"another evaluation: {message}remove it"):
            use(run)


@pytest.mark.parametrize(
    "settings",
    {
        "ablation": suites.RECALL,
        "needle": suites.NEEDLE,
        "zoology": zoology.SETTINGS,
        "mad": mad.SETTINGS,
        "states": states.SETTINGS,
        "essays": essays.SETTINGS,
    }.values(),
)
def test_a_report_of_the_settings_of_a_suite_is_its_own(reported, settings):
    run = reported("lmm at 0.01", 0, 0.5)
    comparison = EvaluationComparison(settings=settings)
    (path,) = run.folder.rglob("results.json")
    report = json.loads(path.read_text())
    path = run.folder / "evaluation" / f"{settings.name}-at-50" / "results.json"
    write_json(report | {"settings": dataclasses.asdict(settings)}, path)
    assert comparison.is_measured(run)


def test_where_all_first_seeds_diverged_no_further_seed_is_worth_it(reported):
    measured = [reported("lmm at 0.01", 0, 0.5)]
    run = dataclasses.replace(measured[0], name="mac at 0.01", seed=1)
    assert not COMPARISON.is_best(run, measured)
    assert not COMPARISON.is_best(run, [])


def test_further_seeds_are_for_the_best_of_the_grid_alone(runs):
    first = runs[:3]
    assert not COMPARISON.is_best(runs[3], first)
    assert COMPARISON.is_best(runs[4], first)


def test_an_interval_ends_where_accuracies_do(reported):
    runs = [reported("lmm at 0.01", seed, 0.9 - seed / 10) for seed in range(2)]
    (line,) = COMPARISON.table(runs)
    assert line["low"] < 0.8 < line["high"] == 1


def test_the_picture_has_a_panel_for_each_task(runs, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: saved.append(self))
    COMPARISON.plot(runs, "models", tmp_path / "picture.png")
    (panel,) = saved[0].axes
    assert panel.get_title() == "copy"
    (curve, _) = panel.lines
    assert curve.get_xydata().tolist() == [[0.001, 0.9], [0.01, 0.6]]


def test_only_attention_over_all_needs_more_bytes_for_more_tokens():
    sizes = {}
    for name in ("lmm", "transformer"):
        path = CONFIGS / "zoology" / f"{name}.toml"
        config = load_config(path, ["model.vocab_size=32", "model.d_model=8"]).model
        sizes[name] = [model_sizes(config, n)["state bytes"] for n in (64, 1024, 4096)]
    assert len(set(sizes["lmm"])) == 1
    small, large, window = sizes["transformer"]
    # Two layers' keys and values of 8 numbers in float32.
    assert large - small == (1024 - 64) * 2 * 2 * 8 * 4
    assert window == large


def test_the_plane_has_every_model_in_every_width():
    cases = suite("zoology", CONFIGS, ["model.d_model=16"], seeds=1).cases
    loaded = [case.load() for case in cases]
    assert [one.model.d_model for one in loaded] == [64] * 5 + [128] * 5
    mixes = {
        tuple(sorted(zip(one.data.lengths, one.data.task.pairs_in_turn, strict=True)))
        for one in loaded
    }
    assert mixes == {((64, 4),) * 5 + ((128, 8), (256, 16), (256, 32), (256, 64))}
    assert len({one.data.task.model_dump_json() for one in loaded}) == 1


@pytest.mark.parametrize(
    ("name", "n_runs"),
    {"mad": 6 * 2 * 6, "states": 3 * 10 + 3 * 2, "essays": 2 * 3}.items(),
)
def test_every_run_of_a_suite_has_a_config_and_differs_from_all_others(name, n_runs):
    cases = suite(name, CONFIGS, ["train.steps=1000"], seeds=1).cases
    loaded = [case.load() for case in cases]
    assert len({case.name for case in cases}) == n_runs
    assert len({one.model_dump_json() for one in loaded}) == n_runs
    assert {one.train.steps for one in loaded} == {1000}
