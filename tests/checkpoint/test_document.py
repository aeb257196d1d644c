import json
import shutil

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.checkpoint.saved_steps import TEMPLATE, save_steps
from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.leaf_table import leaf_checksums
from titans_eqx.checkpoint.manifest import write_manifest


def exchange_arrays(step_folder):
    """Put the arrays of step 1 in the place of those of the step."""
    shutil.rmtree(step_folder / "model")
    shutil.copytree(step_folder.parent / "1" / "model", step_folder / "model")


def edit(change):
    def damage(step_folder):
        path = step_folder / "metadata" / "metadata"
        document = json.loads(path.read_text())
        path.write_text(json.dumps(change(document)))

    return damage


EDITS = {
    "arrays": (exchange_arrays, "model.weights has other values than were saved"),
    "no checksums": (
        edit(lambda it: it | {"checksums": {}}),
        "model.weights has other values than were saved",
    ),
    "a checksum": (
        edit(lambda it: it | {"checksums": {"model.weights": "00"}}),
        "model.weights has other values than were saved",
    ),
    "checksums of another type": (
        edit(lambda it: it | {"checksums": ["00"]}),
        "in its metadata, checksums: Input should be a valid dictionary",
    ),
    "a list": (edit(lambda it: [it]), "metadata is not a dictionary"),
    "no leaves": (
        edit(lambda it: {"metadata": it["metadata"]}),
        "in its metadata, leaves: Field required",
    ),
    "a leaf is a number": (
        edit(lambda it: it | {"leaves": {"model": {"weights": 1}}}),
        "in its metadata, leaves.model.weights: Input should be",
    ),
    "metadata are a list": (
        edit(lambda it: it | {"metadata": ["at", 2]}),
        "in its metadata, metadata: Input should be a valid dictionary",
    ),
}


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    save_steps(folder, 1, 2)
    return folder


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_noticed_although_the_manifest_is_made_anew(
    two_steps, tmp_path, name
):
    folder = shutil.copytree(two_steps, tmp_path / "checkpoints")
    damage, message = EDITS[name]
    damage(folder / "2")
    write_manifest(folder / "2")
    with Checkpoints(folder, read_only=True) as checkpoints:
        restored = checkpoints.restore_latest(TEMPLATE)
    assert restored is not None
    assert restored.step == 1
    (line,) = restored.refused
    assert line.startswith("step 2 is damaged: ")
    assert message in line
    assert "\n" not in line


def checksum(leaf):
    return leaf_checksums({"leaf": leaf})["leaf"]


def test_checksums_tell_values_types_and_shapes_apart():
    ones = jnp.ones((2, 3))
    leaves = [
        ones,
        ones.at[1, 2].set(np.nextafter(np.float32(1), np.float32(2))),
        -0.0 * ones,
        0.0 * ones,
        ones.reshape(3, 2),
        ones.astype(jnp.int32),
        ones.astype(jnp.bfloat16),
        jnp.zeros((0, 3)),
        jnp.zeros((3, 0)),
        jnp.float32(1),
        jr.key(0),
        jr.key(1),
        jr.key_data(jr.key(1)),
    ]
    checksums = [checksum(leaf) for leaf in leaves]
    assert len(set(checksums)) == len(leaves)
    assert checksums == [checksum(leaf) for leaf in leaves]
    assert checksum(np.ones((2, 3), np.float32)) == checksums[0]


@pytest.mark.skipif(jax.device_count() < 4, reason="needs 4 devices")
@pytest.mark.parametrize("names", [("data",), (None,)], ids=["split", "replicated"])
def test_checksums_do_not_depend_on_the_devices(names):
    mesh = jax.make_mesh((4,), ("data",), (AxisType.Auto,))
    leaf = jnp.arange(8.0)
    placed = jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*names)))
    assert checksum(placed) == checksum(leaf)


def test_an_array_can_be_donated_after_its_checksum():
    leaf = jnp.ones((1024,))
    checksum(leaf)
    jax.jit(lambda x: x + 1, donate_argnums=0)(leaf)
    assert leaf.is_deleted()
