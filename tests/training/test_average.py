import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.load_model import load_model
from titans_eqx.sharding.mesh import build_mesh
from titans_eqx.training import TrainContext
from titans_eqx.training.state import init_train_state
from titans_eqx.training.step import build_train_step

DECAY = 0.9


class Line(eqx.Module):
    slope: jax.Array


def loss(model, batch):
    return jnp.sum((model.slope - batch["targets"]) ** 2), jnp.asarray(2)


def test_average_has_the_weights_of_its_definition(x64, optax_promotion):
    optimizer = optax.sgd(0.3)
    state, static = init_train_state(Line(jnp.ones(())), optimizer, averages=True)
    mesh = build_mesh(2, data=1)
    step = build_train_step(optimizer, static, mesh, loss, ema_decay=DECAY)
    slopes = []
    for target in (3.0, np.nan, -1.0, 7.0, np.inf, 2.0):
        state, _ = step(state, {"targets": jnp.full(2, target)})
        if np.isfinite(target):  # others are skipped, and count for nothing
            slopes.append(float(state.parameters.slope))
        weights = DECAY ** np.arange(len(slopes))[::-1]
        expected = np.sum(weights * slopes) / np.sum(weights)
        np.testing.assert_allclose(state.average.slope, expected, rtol=1e-12)
        assert state.evaluated().parameters is state.average
    assert len(slopes) == 4


@pytest.fixture(scope="module")
def run(small_config, train_quietly, tmp_path_factory):
    config = small_config(
        model__pattern="transformer",
        train__ema_decay=DECAY,
        train__carry_state=True,
        train__precision="mixed",
        train__accumulate=2,
        train__loss_block=8,
        train__steps=4,
    )
    folder = tmp_path_factory.mktemp("averaged") / "run"
    train_quietly(config, folder)
    return config, folder


def last_items(config, folder):
    items = TrainContext.build(config, abstract=True).state.items()
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore_latest(items)
    assert restored is not None
    return restored.items


def assert_equal_trees(left, right):
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_continued_run_has_the_same_average_and_carry(run, train_quietly, tmp_path):
    config, reference = run
    folder = shutil.copytree(reference, tmp_path / "run")
    (folder / "checkpoints" / "4" / "manifest.json").unlink()
    assert "continuing from step 2" in train_quietly(config, folder)
    items, expected = last_items(config, folder), last_items(config, reference)
    assert items.keys() == {"model", "optimizer", "counters", "average", "carry"}
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(items["carry"]))
    kept = jax.tree.leaves((items["model"], items["average"], items["optimizer"]))
    assert {x.dtype for x in kept} == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}
    assert_equal_trees(items, expected)


def test_a_model_is_loaded_as_the_average(run):
    items = last_items(*run)
    for average, item in ((True, "average"), (False, "model")):
        model = load_model(run[1], average=average).model
        assert_equal_trees(eqx.filter(model, eqx.is_array), items[item])
    assert np.any(items["average"].embedding != items["model"].embedding)
