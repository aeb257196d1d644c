"""The device mesh: batches are split over one axis, everything else is replicated."""

import os
from typing import Final

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from titans_eqx.errors import UserError

DATA_AXIS: Final = "data"
BATCH: Final = PartitionSpec(DATA_AXIS)
REPLICATED: Final = PartitionSpec()


class MeshError(UserError):
    """The devices that a config asks for are not available."""


def use_all_cpu_cores() -> None:
    """Give a CPU-only machine one virtual device for each core.

    XLA's CPU matrix products are small here and use one core each; sequences on several
    devices run in parallel, about twice as fast on two cores. Call before anything
    touches a device; an explicit setting of the user wins.
    """
    is_set = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not is_set and jax.config.jax_num_cpu_devices < 0:  # type: ignore[attr-defined]
        jax.config.update("jax_num_cpu_devices", _usable_cores())


def _usable_cores() -> int:
    # Only Linux says which cores this process may use, such as those of a container.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def build_mesh(n_devices: int, batch_size: int) -> Mesh:
    """A mesh with the single axis `data`.

    Args:
        n_devices: Devices along the batch axis; 0 for the most that divide the batch.
        batch_size: Sequences of a global batch.

    Raises:
        MeshError: If there are fewer devices, or they do not divide the batch.
    """
    available = len(jax.devices())
    if n_devices == 0:
        n_devices = max(n for n in range(1, available + 1) if batch_size % n == 0)
    if n_devices > available:
        raise MeshError(
            f"mesh.data asks for {n_devices} devices, but there are {available}. "
            f"Use at most {available}, or 0 for all."
        )
    if batch_size % n_devices != 0:
        raise MeshError(
            f"train.batch_size must be a multiple of mesh.data, got "
            f"batch_size={batch_size} and data={n_devices}."
        )
    return jax.make_mesh(
        (n_devices,),
        (DATA_AXIS,),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[:n_devices],
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The batch axis split over the devices."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(mesh, REPLICATED)
