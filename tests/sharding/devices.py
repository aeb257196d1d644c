"""Running a function inside `shard_map`, a part of its arguments on each device."""

import jax
from jax.sharding import PartitionSpec


def over_devices(function, *arguments):
    """Run a function on each device's part of the arguments."""
    n_devices = jax.device_count()
    assert n_devices > 1
    mesh = jax.make_mesh(
        (n_devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    spec = PartitionSpec("data")
    sharded = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec)
    return jax.jit(sharded)(*arguments)
