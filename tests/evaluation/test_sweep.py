"""Whose the folder of a sweep is; no run is trained here."""

import dataclasses
from pathlib import Path

import pytest

from titans_eqx.errors import UserError
from titans_eqx.evaluation import sweep
from titans_eqx.evaluation.suites import SUITES, suite

CONFIGS = Path(__file__).parents[2] / "configs"


def start(name, out):
    """Start a sweep that asks for no run."""
    sweep.sweep(suite(name, CONFIGS), out, only=["none"], with_picture=False)


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_called_as_it_is_asked_for(name):
    assert suite(name, CONFIGS).name == name


def test_the_folder_of_another_suite_is_refused(tmp_path):
    out = tmp_path / "new" / "sweep"
    start("zoology", out)
    (out / "table.json").write_text("[1]")
    start("zoology", out)
    message = "table.json or picture.png of zoology, which mad would replace; name"
    with pytest.raises(UserError, match=message):
        start("mad", out)
    assert (out / "table.json").read_text() == "[1]"
    start("zoology", out)


def test_a_picture_of_somebody_else_is_not_replaced(tmp_path):
    (tmp_path / "picture.png").write_text("mine")
    with pytest.raises(UserError, match="of another suite, which mad would replace"):
        start("mad", tmp_path)


def test_a_folder_without_a_name_belongs_to_the_suite_of_its_runs(tmp_path):
    (tmp_path / "table.json").write_text("[]")
    (tmp_path / "mag-off").mkdir()
    with pytest.raises(UserError, match="of another suite, which mad would replace"):
        start("mad", tmp_path)
    start("text", tmp_path)
    with pytest.raises(UserError, match="of text, which mad would replace"):
        start("mad", tmp_path)


@pytest.mark.parametrize("name", SUITES)
def test_what_a_run_starts_with_comes_before_it(name):
    chosen = suite(name, CONFIGS, seeds=1)
    names = [case.name for case in chosen.cases]
    for index, case in enumerate(chosen.cases):
        assert case.after is None or case.after in names[:index]
        case.load()


def test_a_key_that_a_run_sets_itself_is_said_to_have_no_effect(tmp_path, capsys):
    overrides = ["train.steps=700", "data.task.n_moved=2", "data.task.tokens_each=2"]
    (case,) = (
        case
        for case in suite("states", CONFIGS, overrides, seeds=1).cases
        if case.name == "delta on s5 by swaps"
    )
    assert case.without_effect == ()  # the same value, and keys that it does not set
    chosen = suite("states", CONFIGS, overrides, seeds=1)
    run = "delta, steps to 2 on s5 spelled, 2 moved"
    chosen = dataclasses.replace(chosen, is_worth=lambda *_: False)
    sweep.sweep(chosen, tmp_path, only=[run], with_picture=False)
    assert capsys.readouterr().out.splitlines() == [
        f"--set data.task.tokens_each=2 has no effect on {run}, which sets it"
    ]


def test_all_that_a_run_starts_with_is_asked_for():
    model = "delta, steps to 2"
    asked = suite("states", CONFIGS, seeds=2).asked_for([f"{model} on s5 spelled"])
    tasks = ["s5 spelled, 2 moved", "s5 spelled, 3 moved", "s5 spelled"]
    labels = [f"{model} on {task}" for task in tasks]
    assert [case.label for case in asked] == [
        *labels,
        *(f"{one} seed 1" for one in labels),
    ]
