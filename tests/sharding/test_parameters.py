import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from titans_eqx.sharding.mesh import build_mesh
from titans_eqx.sharding.parameters import (
    Shard,
    as_shards,
    device_bytes,
    gather,
    partition_specs,
    shardings,
    split_axes,
)

pytestmark = pytest.mark.skipif(jax.device_count() != 4, reason="needs 4 devices")


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((), ()),
        ((4096,), ()),  # the first axis never is
        ((8, 64), ()),  # too small
        ((32, 64), (None, "fsdp")),
        ((4096, 32), (None, "fsdp")),
        ((2, 32, 64), (None, None, "fsdp")),
        ((2, 64, 32), (None, "fsdp")),
        ((2, 34, 30), ()),  # 4 divides none
        ((2, 34, 64), (None, None, "fsdp")),
    ],
)
def test_the_largest_axis_that_can_be_is_split(shape, spec):
    mesh = build_mesh(4, fsdp=4)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    assert partition_specs(x, mesh) == PartitionSpec(*spec)


def test_each_device_has_its_part_and_gathers_the_whole():
    mesh = build_mesh(4, data=2, fsdp=2)
    tree = {
        "split": jnp.arange(2048.0).reshape(2, 32, 32),
        "whole": jnp.arange(3.0),
        "other": "no array",
    }
    arrays = {name: tree[name] for name in ("split", "whole")}
    placed = jax.device_put(arrays, shardings(arrays, mesh))
    sizes = {shard.data.nbytes for shard in placed["split"].addressable_shards}
    assert sizes == {1024 * 4}
    assert device_bytes(arrays, mesh) == 1024 * 4 + 3 * 4

    axes = split_axes(tree, mesh)

    def local(arrays):
        shards = as_shards(arrays | {"other": "no array"}, axes)
        assert isinstance(shards["split"], Shard)
        assert shards["other"] == "no array"
        assert shards["split"].part.shape == (2, 16, 32)
        a_layer = jax.tree.map(lambda x: x[0], shards["split"])
        return gather(shards)["split"][None], gather(a_layer)[None]

    whole, layer = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(partition_specs(arrays, mesh),),
        out_specs=PartitionSpec(("data", "fsdp")),
    )(placed)
    for device in range(4):
        np.testing.assert_array_equal(whole[device], tree["split"])
        np.testing.assert_array_equal(layer[device], tree["split"][0])
