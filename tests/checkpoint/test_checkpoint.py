import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.checkpoint.saved_steps import (
    TEMPLATE,
    empty_folder,
    flip_bit,
    items,
    remove_file,
    remove_manifest,
    remove_metadata,
    save_steps,
    truncate,
)
from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.errors import CheckpointError


def make_items(scale=1.0):
    mlp = eqx.nn.MLP(2, 2, 3, depth=1, key=jr.key(0))
    model = jax.tree.map(lambda leaf: scale * leaf, eqx.filter(mlp, eqx.is_array))
    return {
        "model": model,
        "optimizer": optax.adamw(1e-3).init(model),
        "others": {
            "key": jr.key(7),
            "half": jnp.full((3,), scale, jnp.bfloat16),
            "empty": jnp.zeros((0, 2)),  # as without persistent tokens
        },
        "counters": {"step": jnp.int32(5)},
        "nothing": {},
        "only_empty": [jnp.zeros((2, 0))],
    }


def assert_equal_trees(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert one.dtype == other.dtype
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jr.key_data(one), jr.key_data(other)
        np.testing.assert_array_equal(one, other)


DAMAGE = [
    flip_bit,
    truncate,
    remove_file,
    empty_folder,
    remove_manifest,
    remove_metadata,
]


@pytest.mark.parametrize("abstract", [False, True])
def test_round_trip_is_exact(tmp_path, abstract):
    saved, metadata = make_items(), {"config": {"layers": [1, 2]}, "version": "1"}
    template = make_items(scale=0.0)
    if abstract:
        template = eqx.filter_eval_shape(make_items)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, saved, metadata)
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore_latest(template)
    assert restored is not None
    assert (restored.step, restored.metadata, restored.refused) == (3, metadata, ())
    assert_equal_trees(restored.items, saved)


def test_empty_folder_restores_nothing(tmp_path):
    with Checkpoints(tmp_path / "new") as checkpoints:
        assert checkpoints.restore_latest(TEMPLATE) is None
        with pytest.raises(CheckpointError, match="there is none"):
            checkpoints.read_metadata()


def test_latest_steps_are_kept_with_a_manifest_each(tmp_path):
    save_steps(tmp_path, 1, 2, 30)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [2, 30]
        assert checkpoints.restore(2, TEMPLATE).items["model"]["weights"][0] == 2
        assert checkpoints.read_metadata() == (30, {"at": 30})
        assert checkpoints.read_metadata(2) == (2, {"at": 2})
        with pytest.raises(CheckpointError, match="no step 1 in .*there are 2, 30"):
            checkpoints.restore(1, TEMPLATE)
    assert all((tmp_path / step / "manifest.json").exists() for step in ("2", "30"))
    assert not (tmp_path / "saving").exists()


def test_save_is_finished_when_the_next_begins_and_donated_arrays_are_safe(tmp_path):
    add_one = jax.jit(
        lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0
    )
    arrays = items()
    with Checkpoints(tmp_path, keep=4) as checkpoints:
        for step in range(4):
            checkpoints.save(step, arrays, {})
            arrays = add_one(arrays)
        for step in range(4):
            restored = checkpoints.restore(step, TEMPLATE)
            assert (restored.items["model"]["weights"] == step).all()


@pytest.mark.parametrize("step", [4, 5])
def test_saving_an_old_step_is_refused(tmp_path, step):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, TEMPLATE, {})
        with pytest.raises(
            CheckpointError, match=f"save step {step} .* step 5 is there"
        ):
            checkpoints.save(step, TEMPLATE, {})


@pytest.mark.parametrize(
    ("saved", "metadata", "message"),
    [
        (TEMPLATE, {"config": object()}, "not JSON serializable"),
        (TEMPLATE, {"text": "x" * 2**25}, "allowed are"),
        ({"model": jax.nn.relu}, {}, "model must be an array"),
    ],
    ids=["no json", "too large", "no array"],
)
def test_what_cannot_be_stored_is_refused(tmp_path, saved, metadata, message):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match=message):
            checkpoints.save(1, saved, metadata)
        assert checkpoints.steps() == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_step_falls_back_and_can_be_saved_again(tmp_path, damage):
    save_steps(tmp_path, 1, 2)
    named = damage(tmp_path / "2")
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore_latest(TEMPLATE)
        assert restored is not None
        assert restored.step == 1
        assert (restored.items["model"]["weights"] == 1).all()
        (message,) = restored.refused
        assert message.startswith("step 2 is damaged")
        assert named in message
        assert (tmp_path / "corrupt" / "2").is_dir()
        checkpoints.save(2, items(22), {})
        restored = checkpoints.restore_latest(TEMPLATE)
        assert restored is not None
        assert (restored.step, restored.refused) == (2, ())
        assert (restored.items["model"]["weights"] == 22).all()


def test_step_damaged_twice_is_set_aside_twice(tmp_path):
    save_steps(tmp_path, 1)
    for name in ("2", "2-2"):
        save_steps(tmp_path, 2)
        flip_bit(tmp_path / "2")
        with Checkpoints(tmp_path) as checkpoints:
            assert checkpoints.restore_latest(TEMPLATE) is not None
        assert (tmp_path / "corrupt" / name).is_dir()


@pytest.mark.parametrize("damage", DAMAGE)
def test_all_steps_damaged_is_an_error_that_moves_nothing(tmp_path, damage):
    save_steps(tmp_path, 1, 2)
    for step in ("1", "2"):
        damage(tmp_path / step)
    for _ in range(2):
        with Checkpoints(tmp_path) as checkpoints:
            message = "no usable.*step 2.*step 1.* titans-train --fresh starts over"
            with pytest.raises(CheckpointError, match=message):
                checkpoints.restore_latest(TEMPLATE)
            assert checkpoints.steps() == [1, 2]


def test_reading_only_changes_nothing(tmp_path):
    save_steps(tmp_path, 1, 2)
    flip_bit(tmp_path / "2")
    before = sorted(tmp_path.rglob("*"))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        restored = checkpoints.restore_latest(TEMPLATE)
        assert restored is not None
        assert restored.step == 1
        with pytest.raises(CheckpointError, match="reading only"):
            checkpoints.save(3, TEMPLATE, {})
        with pytest.raises(CheckpointError, match="step 2 .* is damaged: model"):
            checkpoints.restore(2, TEMPLATE)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(CheckpointError, match="no such folder"):
        Checkpoints(tmp_path / "none", read_only=True)


def test_damaged_metadata_is_not_returned(tmp_path):
    save_steps(tmp_path, 1, 2)
    remove_metadata(tmp_path / "2")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.read_metadata() == (1, {"at": 1})
        with pytest.raises(CheckpointError, match="step 2 is damaged: metadata"):
            checkpoints.read_metadata(2)


MISFITS = {
    "shape": ({"weights": jnp.zeros((65,))}, r"weights is float32\[64\] .*\[65\]"),
    "dtype": ({"weights": jnp.zeros((64,), jnp.bfloat16)}, "expected bfloat16"),
    "missing": (
        {**TEMPLATE["model"], "bias": jnp.zeros(2)},
        "model.bias is not in what was saved",
    ),
    "extra": ({}, r"weights is float32\[64\] in what was saved, expected nothing"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_template_that_does_not_fit_is_refused_by_path(tmp_path, name):
    template, message = MISFITS[name]
    save_steps(tmp_path, 1, 2)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match=message) as caught:
            checkpoints.restore_latest({"model": template})
        assert "\n" not in str(caught.value)
        assert checkpoints.steps() == [1, 2]


def test_only_the_items_asked_for_are_read_and_checked(tmp_path):
    saved = items(7) | {"optimizer": {"mean": jnp.ones((128,))}}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, saved, {})
    shutil.rmtree(tmp_path / "1" / "optimizer")
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        restored = checkpoints.restore_latest(TEMPLATE)
        assert restored is not None
        assert_equal_trees(restored.items, items(7))
        with pytest.raises(CheckpointError, match="optimizer/.* is missing"):
            checkpoints.restore_latest(saved)


def test_item_that_was_not_saved_is_refused(tmp_path):
    save_steps(tmp_path, 1)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match="counters.step is not in"):
            checkpoints.restore_latest({"counters": {"step": jnp.int32(0)}})


def place(n_devices):
    devices = jax.devices()[:n_devices]
    mesh = jax.make_mesh((n_devices,), ("data",), (AxisType.Auto,), devices=devices)
    return {"model": {"weights": NamedSharding(mesh, PartitionSpec("data"))}}


@pytest.mark.skipif(jax.device_count() < 4, reason="needs 4 devices")
@pytest.mark.parametrize(("saved_on", "restored_on"), [(4, 1), (1, 4), (4, 2)])
def test_restored_onto_other_devices(tmp_path, saved_on, restored_on):
    weights = {"model": {"weights": jnp.arange(64.0)}}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, jax.device_put(weights, place(saved_on)), {})
        template = jax.device_put(TEMPLATE, place(restored_on))
        restored = checkpoints.restore_latest(template)
    assert restored is not None
    wanted = template["model"]["weights"].sharding
    assert restored.items["model"]["weights"].sharding == wanted
    assert_equal_trees(restored.items, weights)


def test_one_kept_step_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="keep must be at least 2, got 1"):
        Checkpoints(tmp_path, keep=1)


def test_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot use the checkpoint folder"):
        Checkpoints(tmp_path / "file")
