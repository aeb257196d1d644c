import copy
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training.metrics import numbers, records
from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.errors import CheckpointError
from titans_eqx.checkpoint.metadata import (
    check_resumable,
    saved_config,
)
from titans_eqx.checkpoint.metadata import metadata as run_metadata
from titans_eqx.config import load_config, to_toml
from titans_eqx.data import open_dataset
from titans_eqx.training import TrainContext
from titans_eqx.training.report import TrainingDisplay

ROOT = Path(__file__).parents[2]


def last_state(folder, config):
    items = TrainContext.build(config, abstract=True).state.items()
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore_latest(items)
    assert restored is not None
    return restored.step, restored.items


def assert_equal_trees(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def at_step(monkeypatch):
    """A function that lets something happen once, when a step is reported."""

    def arrange(step, happen):
        report = TrainingDisplay.log

        def log(self, logged_step, metrics):
            report(self, logged_step, metrics)
            if logged_step == step:
                monkeypatch.setattr(TrainingDisplay, "log", report)
                happen()

        monkeypatch.setattr(TrainingDisplay, "log", log)

    return arrange


def interrupt():
    signal.raise_signal(signal.SIGTERM)


def crash():
    raise RuntimeError("the power went off")


def test_interrupted_run_equals_an_uninterrupted_one(
    finished_run, train_quietly, at_step, tmp_path
):
    config, reference, _ = finished_run
    # Its last checkpoint is of step 2, so step 3 is done again.
    at_step(3, crash)
    with pytest.raises(RuntimeError, match="power"):
        train_quietly(config, tmp_path)
    assert records(tmp_path)[-1]["step"] == 3
    # Step 5 is between two checkpoints, so this one is extra.
    at_step(5, interrupt)
    output = train_quietly(config, tmp_path)
    assert "continuing from step 2" in output
    assert "stopped and saved at step 5; the same command goes on" in output
    output = train_quietly(config, tmp_path)
    assert "continuing from step 5" in output
    assert "changed" not in output

    assert numbers(tmp_path) == numbers(reference)
    step, state = last_state(tmp_path, config)
    expected_step, expected = last_state(reference, config)
    assert (step, expected_step) == (6, 6)
    assert_equal_trees(state, expected)
    assert (tmp_path / "config.toml").read_bytes() == (
        reference / "config.toml"
    ).read_bytes()


def test_first_save_cut_off_is_no_checkpoint(tiny_run, train_quietly, tmp_path):
    config, folder = tiny_run
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = numbers(tmp_path)
    (tmp_path / "checkpoints" / "2" / "manifest.json").unlink()
    (tmp_path / "checkpoints" / "saving").write_text("2")
    output = train_quietly(config, tmp_path)
    assert "continuing" not in output
    assert numbers(tmp_path) == before


@pytest.mark.slow
def test_damaged_checkpoint_is_reported_and_done_again(
    finished_run, train_quietly, tmp_path
):
    config, reference, _ = finished_run
    folder = shutil.copytree(reference, tmp_path / "run")
    (folder / "checkpoints" / "6" / "manifest.json").unlink()
    output = train_quietly(config, folder)
    assert "step 6 is damaged: manifest.json is missing" in output
    assert "continuing from step 4" in output
    assert numbers(folder) == numbers(reference)
    assert_equal_trees(last_state(folder, config), last_state(reference, config))


@pytest.mark.slow
def test_terminated_process_saves_exits_with_zero_and_goes_on(
    small_config, train_quietly, tmp_path
):
    config = small_config(
        model__pattern="transformer", train__steps=100_000, train__eval_every=0
    )
    config_file, folder = tmp_path / "small.toml", tmp_path / "run"
    config_file.write_text(to_toml(config))
    command = [sys.executable, "scripts/train.py", "--config", str(config_file)]
    with subprocess.Popen(
        [*command, "--run-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            next(line for line in process.stdout if line.startswith("step 3/100,000"))
        finally:
            process.terminate()
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    stopped_at = records(folder)[-1]["step"]
    assert f"stopped and saved at step {stopped_at:,}; the same" in output
    assert last_state(folder, config)[0] == stopped_at

    config = load_config(config_file, [f"train.steps={stopped_at + 1}"])
    output = train_quietly(config, folder)
    assert f"continuing from step {stopped_at:,}" in output
    assert records(folder)[-1]["step"] == stopped_at + 1


def fingerprints(config):
    return open_dataset(config).fingerprints


@pytest.fixture(scope="module")
def metadata(small_config):
    """What a checkpoint says, as it comes back from JSON."""
    config = small_config()
    return json.loads(json.dumps(run_metadata(config, fingerprints(config))))


@pytest.fixture
def changes_of(small_config, metadata):
    def check(**changes):
        config = small_config(**changes)
        return check_resumable(config, fingerprints(config), metadata)

    return check


def test_same_config_has_no_changes(changes_of):
    assert changes_of() == []


def test_config_comes_back_from_a_checkpoint(small_config, metadata):
    assert saved_config(metadata) == small_config()


def test_a_key_that_came_after_the_checkpoint_has_its_default(small_config, metadata):
    older = copy.deepcopy(metadata)
    del older["config"]["model"]["memory"]["decay_start"]
    assert saved_config(older) == small_config()
    config = small_config()
    assert check_resumable(config, fingerprints(config), older) == []


def test_a_config_of_another_version_is_refused_in_one_line(metadata):
    newer = copy.deepcopy(metadata)
    newer["config"]["model"]["memory"]["forgets"] = "slowly"
    with pytest.raises(
        CheckpointError,
        match="in the checkpoint: .*forgets.* Use titans_eqx .*, which",
    ):
        saved_config(newer)


def test_changed_keys_of_training_are_reported(changes_of):
    assert changes_of(optimizer__learning_rate=0.02, train__steps=8) == [
        "optimizer.learning_rate was 0.01, is 0.02",
        "train.steps was 6, is 8",
    ]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model__d_model", 16, "model.d_model was 8, is 16"),
        (
            "model__memory__max_learning_rate",
            0.2,
            "model.memory.max_learning_rate was 0.1, is 0.2",
        ),
        ("model__memory__off", True, "model.memory.off was False, is True"),
        ("model__pattern", "mag", "model.pattern was lmm, is mag"),
    ],
)
def test_changed_model_is_refused_by_key(changes_of, key, value, message):
    with pytest.raises(CheckpointError, match=f"another model: {message}. Change it"):
        changes_of(**{key: value})


@pytest.mark.parametrize(("key", "value"), [("ema_decay", 0.9), ("carry_state", True)])
def test_what_was_not_saved_cannot_be_switched_on(changes_of, key, value):
    message = f"train.{key} was off when the checkpoint .* train.init_from = this"
    with pytest.raises(CheckpointError, match=message):
        changes_of(**{f"train__{key}": value})


def test_streams_are_not_cut_anew(small_config, metadata):
    streams = copy.deepcopy(metadata)
    streams["config"]["train"]["carry_state"] = True
    config = small_config(train__carry_state=True, data__seq_len=8)
    with pytest.raises(CheckpointError, match="streams: data.seq_len was 16, is 8"):
        check_resumable(config, fingerprints(config), streams)


def test_changed_text_is_refused(changes_of, small_config, tmp_path):
    text = Path(small_config().data.path).read_text()
    other = tmp_path / "text.py"
    other.write_text(text + "x = 1\n")
    with pytest.raises(CheckpointError, match="the training text is not the one"):
        changes_of(data__path=str(other))


def test_moved_text_is_the_same_text(changes_of, small_config, tmp_path):
    path = Path(small_config().data.path)
    moved = Path(shutil.copy(path, tmp_path))
    assert changes_of(data__path=str(moved)) == [
        f"data.path was {path}, is {moved}",
    ]


def test_other_held_out_text_is_refused(changes_of, tmp_path):
    (tmp_path / "other.py").write_text("print('held out')\n" * 9)
    with pytest.raises(CheckpointError, match="the (training|held-out) text"):
        changes_of(data__eval_path=str(tmp_path / "other.py"))


def test_checkpoint_of_another_format_is_refused(small_config, metadata):
    config = small_config()
    with pytest.raises(CheckpointError, match=r"format 0\); .* reads format 4"):
        check_resumable(config, fingerprints(config), metadata | {"format": 0})


def test_run_with_another_model_is_refused_and_keeps_everything(
    finished_run, small_config, train_quietly
):
    _, folder, _ = finished_run
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    other = small_config(train__sample_every=3, model__memory__max_learning_rate=0.2)
    with pytest.raises(CheckpointError, match="max_learning_rate was 0.1, is 0.2"):
        train_quietly(other, folder)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    lock = folder / "lock"
    assert {k: v for k, v in after.items() if k not in (lock, folder)} == {
        k: v for k, v in before.items() if k not in (lock, folder)
    }
