import os
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
def test_zero_means_the_most_devices_that_divide_the_batch(batch_size, n_devices):
    mesh = build_mesh(0, batch_size)
    assert dict(mesh.shape) == {"data": n_devices}


@needs_four
def test_asked_number_of_devices_is_taken():
    assert dict(build_mesh(2, 8).shape) == {"data": 2}


@needs_four
def test_too_many_devices_are_refused():
    with pytest.raises(MeshError, match="asks for 5 devices, but there are 4.*at most"):
        build_mesh(5, 10)


def test_batch_that_devices_do_not_divide_is_refused():
    with pytest.raises(
        MeshError, match="multiple of mesh.data, got batch_size=5 and data=2"
    ):
        build_mesh(2, 5)


@needs_four
def test_batches_are_split_and_the_rest_is_everywhere():
    mesh = build_mesh(4, 8)
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
    output = subprocess.run(
        [sys.executable, "-c", COUNT_DEVICES],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(output.stdout)


def test_there_is_one_device_for_each_core():
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    assert count_devices("") == cores


def test_number_of_devices_that_the_user_set_is_kept():
    assert count_devices("--xla_force_host_platform_device_count=3") == 3
