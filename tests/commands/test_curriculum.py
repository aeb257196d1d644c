import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import pytest

from tests.commands.small_sweep import SMALL
from titans_eqx.checkpoint.load_model import load_model
from titans_eqx.commands.sweep import CONFIGS
from titans_eqx.evaluation import suites as library
from titans_eqx.evaluation import sweep
from titans_eqx.evaluation.case import Case, Suite
from titans_eqx.evaluation.comparison import EvaluationComparison
from titans_eqx.training.divergence import DivergedError


@pytest.fixture
def curriculum():
    """Two small runs, the second from the weights of the first."""
    small = [f"{key}={value}" for key, value in SMALL.items()]
    first = Case(
        name="first",
        config=CONFIGS / "recall" / "transformer.toml",
        overrides=tuple(small),
        seed=1,
    )
    second = dataclasses.replace(first, name="second", after="first")
    comparison = EvaluationComparison(
        settings=dataclasses.replace(
            library.RECALL, lengths=(64,), n_pairs=(2,), n_examples=2
        )
    )
    return Suite(name="curriculum", cases=(first, second), comparison=comparison)


def test_what_a_run_starts_with_is_trained_first(
    curriculum, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    go = partial(sweep.sweep, curriculum, only=["second"], with_picture=False)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and reals
        go(out)
    start = str(out / "first-seed-1")
    assert f"starting with the weights of {start}, step 2" in capsys.readouterr().out
    config = load_model(out / "second-seed-1").config
    assert config.train.init_from == start
    # The same folder by another path.
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"):
        go(Path("out"))
    assert capsys.readouterr().out.count("nothing to do") == 2
    table = json.loads((out / "table.json").read_text())
    assert {line["run"] for line in table} == {"first seed 1", "second seed 1"}


def test_a_run_whose_start_diverged_is_left_out(
    curriculum, tmp_path, monkeypatch, capsys
):
    tried = []

    def train(_, folder):
        tried.append(folder.name)
        raise DivergedError("no finite gradient")

    monkeypatch.setattr(sweep, "train", train)
    sweep.sweep(curriculum, tmp_path / "out", with_picture=False)
    assert tried == ["first-seed-1"]
    printed = capsys.readouterr().out
    assert "second seed 1 is left out: it starts with the weights of first" in printed
