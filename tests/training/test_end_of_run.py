import shutil
import signal

import pytest

from tests.training.metrics import numbers, records
from titans_eqx.config import load_config
from titans_eqx.training.report import TrainingDisplay


def contents(folder):
    """Bytes of every file of results."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def tiny(small_config):
    """A run that compiles fast: no memory."""

    def make(**changes):
        return small_config(model__pattern="transformer", **changes)

    return make


@pytest.mark.parametrize("rate", [0.01, 0.5])
def test_finished_run_says_so_and_changes_nothing(
    tiny, tiny_run, train_quietly, tmp_path, rate
):
    copy = shutil.copytree(tiny_run[1], tmp_path / "run")
    before = contents(copy)
    config = tiny(train__steps=2, optimizer__learning_rate=rate)
    output = train_quietly(config, copy, tensorboard=True)
    assert "nothing to do: the run has 2 of 2 steps" in output
    assert contents(copy) == before


def test_last_evaluation_is_made_up_for_after_a_crash(
    tiny_run, train_quietly, tmp_path
):
    config, folder = tiny_run
    copy = shutil.copytree(folder, tmp_path / "run")
    whole = (copy / "metrics.jsonl").read_text()
    *steps, last = whole.splitlines(keepends=True)
    for rest in ("", last[:9]):
        (copy / "metrics.jsonl").write_text("".join(steps) + rest)
        output = train_quietly(config, copy)
        assert "all steps are done, but not the last evaluation" in output
        assert "bits per byte on" in output
        assert (copy / "metrics.jsonl").read_text() == whole
    assert "nothing to do" in train_quietly(config, copy)


def test_more_steps_and_another_rate_continue_a_finished_run(
    tiny, tiny_run, train_quietly, tmp_path
):
    shutil.copytree(tiny_run[1], tmp_path, dirs_exist_ok=True)
    before = records(tmp_path)
    changed = tiny(train__steps=4, optimizer__learning_rate=0.02)
    output = train_quietly(changed, tmp_path)
    assert "the checkpoint: train.steps was 2, is 4" in output
    assert "the checkpoint: optimizer.learning_rate was 0.01, is 0.02" in output
    assert "continuing from step 2" in output
    assert records(tmp_path)[: len(before)] == before
    assert [line["step"] for line in records(tmp_path)] == [1, 2, 2, 3, 4, 4]
    assert load_config(tmp_path / "config.toml") == changed


def test_steps_before_a_stop_are_logged_by_it(
    tiny_run, tiny, train_quietly, monkeypatch, tmp_path
):
    reference = tiny_run[1]  # which logged each step
    show = TrainingDisplay.step

    def step(self, number):
        show(self, number)
        if number == 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(TrainingDisplay, "step", step)
    config = tiny(train__steps=2, train__log_every=100)
    output = train_quietly(config, tmp_path)
    assert "stopped and saved at step 1" in output
    assert numbers(tmp_path) == numbers(reference)[:1]
    train_quietly(config, tmp_path)
    assert numbers(tmp_path) == numbers(reference)
