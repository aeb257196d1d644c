"""Runs that start from the weights of another run."""

import shutil

import jax
import numpy as np
import pytest

from titans_eqx.checkpoint.checkpoints import CheckpointError
from titans_eqx.checkpoint.load_model import load_model
from titans_eqx.config import TrainConfig
from titans_eqx.training import train
from titans_eqx.training.context import TrainContext
from titans_eqx.training.starting_weights import ignored_start, start_from

pytestmark = pytest.mark.usefixtures("optax_promotion")


def start(small_config, folder, **changes):
    config = small_config(**changes)
    state = TrainContext.build(config, abstract=True).state
    return start_from(state, folder, config, "bytes")


def test_weights_are_drawn_under_the_settings_of_the_caller(small_config):
    context = TrainContext.build(small_config(model__pattern="transformer"))
    plain = context.first_state()
    with jax.default_prng_impl("rbg"):
        other = context.first_state()
    embeddings = (state.result().items()["model"].embedding for state in (plain, other))
    assert not np.array_equal(*embeddings)


def test_the_weights_are_those_of_the_other_run_and_the_rest_is_fresh(
    finished_run, small_config, tmp_path
):
    _, folder, _ = finished_run
    config = small_config(model__memory__chunk_len=2)
    first = TrainContext.build(config).first_state().result()
    loaded = load_model(folder)
    loaded.export(tmp_path / "exported")
    for source in (folder, tmp_path / "exported"):
        state, lines = start_from(first, source, config, "bytes")
        for own, other in zip(
            jax.tree.leaves(state.items()["model"]),
            jax.tree.leaves(loaded.model),
            strict=True,
        ):
            np.testing.assert_array_equal(own, other)
        assert int(state.step) == 0
        momenta = jax.tree.leaves(state.optimizer)
        assert not any(np.any(leaf) for leaf in momenta)
        assert lines[:2] == [
            f"starting with the weights of {source}, step 6",
            "changed since: model.memory.chunk_len was 4, is 2",
        ]
        assert "one chunk length read worse with another" in lines[2]
    with pytest.raises(CheckpointError, match="not the tokenizer of this run"):
        start_from(first, folder, config, "fingerprint of another")


@pytest.mark.slow
def test_a_run_uses_them(finished_run, small_config, train_quietly, tmp_path):
    config, folder, _ = finished_run
    second = small_config(train__init_from=str(folder), train__steps=1)
    printed = train_quietly(second, tmp_path / "second")
    assert f"starting with the weights of {folder}, step 6" in printed.replace("\n", "")
    again = train_quietly(second, tmp_path / "second")
    assert "starting with the weights" not in again  # it goes on from its own
    third = small_config(train__init_from=str(tmp_path / "other"), train__steps=1)
    printed = train_quietly(third, tmp_path / "second").replace("\n", "")
    assert "has no effect" in printed
    assert "changed since the checkpoint" not in printed


def test_other_parameters_are_refused(finished_run, small_config):
    _, folder, _ = finished_run
    with pytest.raises(
        CheckpointError, match=r"has other parameters: model.d_model was 8, is 16\."
    ):
        start(small_config, folder, model__d_model=16)


def test_no_run_is_refused(small_config, tmp_path):
    with pytest.raises(CheckpointError, match=r"train.init_from: .* is no run folder"):
        start(small_config, tmp_path)


def test_nothing_is_moved_for_a_start_that_is_not_there(
    finished_run, small_config, tmp_path
):
    _, folder, _ = finished_run
    own = tmp_path / "run"
    shutil.copytree(folder, own)
    for source, message in {
        tmp_path / "typo": "is no run folder",
        own: "is the run's own folder, whose results --fresh would move",
    }.items():
        config = small_config(train__init_from=str(source))
        with pytest.raises(CheckpointError, match=f"train.init_from: .*{message}"):
            train(config, own, fresh=True)
    assert not (own / "previous").exists()


def test_a_start_that_comes_too_late_is_said_to_have_no_effect():
    none, first, other = (TrainConfig(init_from=one) for one in ("", "runs/a", "b"))
    moved = TrainConfig(init_from="elsewhere/a")
    line = "train.init_from = b has no effect: the run goes on from its own checkpoint"
    for before in (none, first):
        assert (ignored_start(other, before) or "").startswith(line)
    for now in (none, first, moved):
        assert ignored_start(now, first) is None
