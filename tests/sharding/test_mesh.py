import os
import re
import subprocess
import sys

import jax
import pytest

from titans_eqx.sharding.mesh import MeshError, batch_sharding, build_mesh, replicated

needs_four = pytest.mark.skipif(jax.device_count() != 4, reason="needs 4 devices")


@needs_four
@pytest.mark.parametrize(
    ("batch_size", "n_devices"), [(8, 4), (4, 4), (6, 3), (10, 2), (5, 1), (1, 1)]
)
def test_the_rest_are_the_most_devices_that_divide_the_batch(batch_size, n_devices):
    mesh = build_mesh(batch_size)
    assert dict(mesh.shape) == {"data": n_devices, "fsdp": 1}


@needs_four
@pytest.mark.parametrize(
    ("asked", "shape"),
    [
        ({"data": 2}, (2, 1)),
        ({"fsdp": 2}, (2, 2)),
        ({"fsdp": 4}, (1, 4)),
        ({"data": 1, "fsdp": -1}, (1, 4)),
        ({"data": 2, "fsdp": -1}, (2, 2)),
        ({"data": 1, "fsdp": 2}, (1, 2)),
    ],
)
def test_asked_number_of_devices_is_taken(asked, shape):
    assert dict(build_mesh(8, **asked).shape) == dict(
        zip(("data", "fsdp"), shape, strict=True)
    )


@needs_four
@pytest.mark.parametrize(
    ("batch_size", "asked", "message"),
    [
        (10, {"data": 5}, "mesh.data asks for 5 devices, but there are 4. Use at most"),
        (10, {"fsdp": 5}, "mesh.fsdp asks for 5 devices, but there are 4. Use at most"),
        (6, {"data": 2, "fsdp": 3}, "asks for 2 x 3 devices, but there are 4. Use few"),
        (5, {"data": 2}, "got 5, data=2 and fsdp=1"),
        (6, {"data": 1, "fsdp": -1}, "got 6, data=1 and fsdp=4"),
        (8, {"fsdp": 4, "width": 10}, "mesh.fsdp, got d_model=10 and fsdp=4"),
    ],
)
def test_what_does_not_fit_the_devices_is_refused(batch_size, asked, message):
    with pytest.raises(MeshError, match=re.escape(message)):
        build_mesh(batch_size, **asked)


@needs_four
def test_batches_are_split_and_the_rest_is_everywhere():
    mesh = build_mesh(8, data=4)
    batch = jax.device_put(jax.numpy.arange(8), batch_sharding(mesh))
    assert [shard.data.tolist() for shard in batch.addressable_shards] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
    ]
    whole = jax.device_put(jax.numpy.arange(8), replicated(mesh))
    assert all(shard.data.shape == (8,) for shard in whole.addressable_shards)


COUNT_DEVICES = """
from titans_eqx.sharding.mesh import use_all_cpu_cores
use_all_cpu_cores()
import jax
print(jax.device_count())
"""


def count_devices(xla_flags, **environment):
    environment = os.environ | {"XLA_FLAGS": xla_flags} | environment
    command = [sys.executable, "-c", COUNT_DEVICES]
    return int(subprocess.check_output(command, env=environment, text=True))


def test_there_is_one_device_for_each_core():
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    assert count_devices("") == cores


def test_number_of_devices_that_the_user_set_is_kept():
    assert count_devices("--xla_force_host_platform_device_count=3") == 3
