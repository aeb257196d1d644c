import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from click.testing import CliRunner

from tests.commands.small_sweep import SMALL
from tests.refusal import assert_refused
from titans_eqx.checkpoint.load_model import load_model
from titans_eqx.commands.sweep import SUITES, main
from titans_eqx.errors import UserError
from titans_eqx.evaluation import NeedleSettings, sweep
from titans_eqx.evaluation import suites as library
from titans_eqx.evaluation.case import Case, Suite
from titans_eqx.evaluation.comparison import EvaluationComparison, Run
from titans_eqx.evaluation.report import write_json
from titans_eqx.evaluation.row_bits import read_row_bits
from titans_eqx.evaluation.text_models import VARIANTS, PairedComparison


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_sweep_trains_measures_and_goes_on(tmp_path, monkeypatch):
    small = dataclasses.replace(
        library.RECALL, lengths=(64,), n_pairs=(2,), n_examples=2
    )
    monkeypatch.setattr(library, "RECALL", small)
    options = [f"--set={key}={value}" for key, value in SMALL.items()]
    arguments = ["--suite", "recall", "--out", tmp_path, "--no-picture", *options]
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and reals
        first = run(*arguments, "--only", "transformer")
        assert first.exit_code == 0, first.output
        second = run(*arguments, "--only", "transformer", "--seeds", 2)
        assert second.exit_code == 0, second.output
    assert "nothing to do" in second.output
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["run"] for row in table if row["distance"] == 0] == [
        "transformer",
        "transformer seed 1",
    ]
    seeds = [
        load_model(tmp_path / name).config.train.seed
        for name in ("transformer", "transformer-seed-1")
    ]
    assert seeds == [0, 1]
    metrics = (tmp_path / "transformer" / "metrics.jsonl").read_text().splitlines()
    assert "eval_accuracy" in json.loads(metrics[-1])
    assert "bits_per_byte" not in json.loads(metrics[0])
    names = "which has mac, mag, mal, lmm, transformer."
    assert_refused(main, *arguments, "--only", "lm", message=names)


def test_models_on_text_are_measured_on_the_same_rows(run_folder, tmp_path):
    comparison = PairedComparison(VARIANTS, window=4)
    config = load_model(run_folder).config
    off = Run(name="mac off", config=config, folder=tmp_path / "off")
    shutil.copytree(run_folder, off.folder)
    comparison.measure(off, with_picture=False)
    on = dataclasses.replace(off, name="mac titans", folder=tmp_path / "on")
    shutil.copytree(off.folder, on.folder)
    runs = [off, on]
    table = comparison.table(runs)
    assert {line["rows"] for line in table} == {16, 64}
    first, second = table[-2:]  # the last kind of context of the longer rows
    assert first["bits per byte"] == second["bits per byte"] > 0
    assert (first["difference"], second["difference"]) == (None, 0)
    assert second["over"] == "rows"
    path = on.folder / "evaluation" / "rows-at-40" / "results.json"
    all_, *kinds = (
        part
        for part in read_row_bits(path).parts
        if part.length == 64 and (part.start, part.stop) == (0, 64)
    )
    for name in ("bits", "bytes"):
        sums = np.sum([getattr(kind, name) for kind in kinds], axis=0)
        np.testing.assert_allclose(sums, getattr(all_, name))


NEEDLE = NeedleSettings(lengths=(128,), depths=(0.5,), n_examples=2, batch_size=2)


@pytest.fixture
def finished(run_folder, tmp_path):
    """A function that makes a finished, measured run and a case that asks for it."""
    line = {"length": 128, "accuracy": 0.5, "independent": 2.0}
    report = {"settings": dataclasses.asdict(NEEDLE), "table": [line]}

    def make(name, *overrides):
        folder = tmp_path / name
        shutil.copytree(run_folder, folder)
        write_json(report, folder / "evaluation" / "needle-at-40" / "results.json")
        return Case(name=name, config=folder / "config.toml", overrides=overrides)

    return make


def suite_of(*cases):
    comparison = EvaluationComparison(settings=NEEDLE)
    return Suite(name="needle", cases=cases, comparison=comparison)


def test_a_run_of_other_values_is_refused_before_another_is_trained(finished, tmp_path):
    other = finished("other", "train.seed=5")
    first = dataclasses.replace(other, name="first")
    with pytest.raises(UserError, match=r"other was trained with other values in"):
        sweep.sweep(suite_of(first, other), tmp_path, with_picture=False)
    assert not (tmp_path / "first").exists()


def test_a_run_goes_on_to_more_steps_but_with_no_other_values(
    finished, tmp_path, monkeypatch
):
    asked = []

    def train(config, _):
        asked.append(config.train.steps)
        return 0  # interrupted

    monkeypatch.setattr(sweep, "train", train)
    case = finished("run", "train.steps=80")
    sweep.sweep(suite_of(case), tmp_path, with_picture=False)
    assert asked == [80]
    other = dataclasses.replace(case, overrides=(*case.overrides, "train.seed=5"))
    with pytest.raises(UserError, match=r"run was trained with other values in"):
        sweep.sweep(suite_of(other), tmp_path, with_picture=False)
    assert asked == [80]


def test_a_measured_run_without_a_checkpoint_is_trained_again(
    finished, tmp_path, monkeypatch, capsys
):
    case = finished("run")
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.rename(tmp_path / "lost")

    def train(config, _):
        (tmp_path / "lost").rename(checkpoints)
        return config.train.steps

    monkeypatch.setattr(sweep, "train", train)
    sweep.sweep(suite_of(case), tmp_path, with_picture=False)
    assert "left out" not in capsys.readouterr().out
    table = json.loads((tmp_path / "table.json").read_text())
    assert [line["run"] for line in table] == ["run"]


def test_runs_that_are_not_asked_for_and_do_not_fit_are_left_out(
    finished, tmp_path, capsys, monkeypatch
):
    good, beside = finished("good"), finished("beside")
    other, bad = finished("other", "train.seed=5"), finished("bad", "model.none=1")
    monkeypatch.setattr(sweep, "train", lambda config, _: config.train.steps)
    chosen = suite_of(bad, other, good, beside)
    sweep.sweep(chosen, tmp_path, only=["good"], with_picture=False)
    printed = capsys.readouterr().out
    assert "bad is left out: " in printed
    assert "other is left out: " in printed
    table = json.loads((tmp_path / "table.json").read_text())
    assert [line["run"] for line in table] == ["good", "beside"]


def test_what_a_sweep_beside_measures_meanwhile_is_shown(
    finished, tmp_path, monkeypatch
):
    chosen = suite_of(finished("first"), finished("second"))
    report = "evaluation/needle-at-40/results.json"
    results = {name: tmp_path / name / report for name in ("first", "second")}
    contents = {name: path.read_bytes() for name, path in results.items()}
    for path in results.values():
        path.unlink()

    def train(config, folder):
        results["first"].write_bytes(contents["first"])  # by the other sweep
        results[folder.name].write_bytes(contents[folder.name])
        return config.train.steps

    monkeypatch.setattr(sweep, "train", train)
    sweep.sweep(chosen, tmp_path, only=["second"], with_picture=False)
    table = json.loads((tmp_path / "table.json").read_text())
    assert [line["run"] for line in table] == ["first", "second"]


def test_a_measurement_that_was_interrupted_after_its_picture_is_made_again(
    run_folder, tmp_path
):
    shutil.copytree(run_folder, tmp_path / "run")
    config = load_model(run_folder).config
    run = Run(name="run", config=config, folder=tmp_path / "run")
    folder = run.folder / "evaluation" / "needle-at-40"
    folder.mkdir(parents=True)
    (folder / "picture.png").touch()
    comparison = EvaluationComparison(settings=NEEDLE)
    comparison.measure(run, with_picture=False)
    assert comparison.is_measured(run)
    assert json.loads((folder / "results.json").read_text())["average"] is False
    with pytest.raises(UserError, match="holds results"):
        comparison.measure(run, with_picture=False)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_trained(
    tmp_path,
):
    (tmp_path / "file").touch()
    arguments = ["--suite", "recall", "--no-picture", "--out", tmp_path / "file"]
    assert_refused(main, *arguments, message="table.json: Not a directory")


def test_a_run_that_cannot_be_is_refused_before_another_is_trained(tmp_path):
    arguments = ["--suite", "ablation", "--no-picture", "--out", tmp_path]
    for key in ("segment_len", "window"):
        arguments += ["--set", f"model.attention.{key}=16"]
    refused = "got 16 and 32"  # of the run "chunk 32", one of the last
    assert_refused(main, *arguments, message=refused)
    assert not any(tmp_path.iterdir())


def test_the_command_offers_every_suite():
    # It has names of its own, because it does not wait for the library.
    assert SUITES == library.SUITES


def test_without_a_checkout_the_option_is_named(tmp_path):
    arguments = ["--suite", "recall", "--out", tmp_path, "--configs", tmp_path / "no"]
    assert_refused(main, *arguments, message="name the folder configs of a checkout")
