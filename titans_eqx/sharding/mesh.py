"""The device mesh: batches are split over both axes, parameters over one of them.

Axis `data` has copies of the parameters, axis `fsdp` parts of them (fully sharded data
parallelism, see `parameters.py`); each device has a part of the batch of its own.
"""

import os
from typing import Final, TypeAlias

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from titans_eqx.errors import UserError

AnyMesh: TypeAlias = Mesh | AbstractMesh
"""Devices, or a plan of devices that are elsewhere: enough to trace a program."""

FSDP_AXIS: Final = "fsdp"
BATCH_AXES: Final = ("data", FSDP_AXIS)
BATCH: Final = PartitionSpec(BATCH_AXES)
REPLICATED: Final = PartitionSpec()
AXIS_TYPES: Final = (AxisType.Auto, AxisType.Auto)
REST: Final = -1  # as an axis's size: the devices that the other axis leaves


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
        jax.config.update("jax_num_cpu_devices", usable_cores())


def usable_cores() -> int:
    """CPU cores that this process may use."""
    # Only Linux says which cores this process may use, such as those of a container.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def build_mesh(
    batch_size: int, *, data: int = REST, fsdp: int = 1, width: int | None = None
) -> Mesh:
    """A mesh with the axes `data` and `fsdp`.

    Args:
        batch_size: Sequences that all devices read at a time.
        data: Devices along `data`; -1 for the most that are left and divide the batch
            (of several processes: for all that are left).
        fsdp: Devices along `fsdp`; -1 for all that `data` leaves.
        width: Of the model, which `fsdp` has to divide; None not to check that.

    Raises:
        MeshError: If there are fewer devices, or they do not divide the batch or the
            width, or several processes would leave devices idle.
    """
    available = len(jax.devices())
    known = fsdp if data == REST else data
    if known > available:
        name = "fsdp" if data == REST else "data"
        raise MeshError(
            f"mesh.{name} asks for {known} devices, but there are {available}. "
            f"Use at most {available}, or -1 for all."
        )
    left = available // known
    if fsdp == REST:
        fsdp = left
    elif data == REST:
        is_alone = jax.process_count() == 1
        fitting = [n for n in range(1, left + 1) if batch_size % (n * fsdp) == 0]
        data = max(fitting, default=1) if is_alone else left
    _check_sizes(available, batch_size, data, fsdp, width)
    return jax.make_mesh(
        (data, fsdp),
        BATCH_AXES,
        axis_types=AXIS_TYPES,
        devices=jax.devices()[: data * fsdp],
    )


def plan_mesh(data: int, fsdp: int) -> AbstractMesh | None:
    """A mesh of more devices than there are; None if there are enough.

    Args:
        data: Devices along `data`; -1 counts as 1.
        fsdp: Devices along `fsdp`; -1 counts as 1.
    """
    data, fsdp = max(data, 1), max(fsdp, 1)
    if data * fsdp <= len(jax.devices()):
        return None
    return AbstractMesh((data, fsdp), BATCH_AXES, axis_types=AXIS_TYPES)


def is_on_cpu(mesh: AnyMesh) -> bool:
    """Whether its devices are those of a CPU; one of devices elsewhere is not."""
    return isinstance(mesh, Mesh) and mesh.devices.flat[0].platform == "cpu"


def _check_sizes(
    available: int, batch_size: int, data: int, fsdp: int, width: int | None
) -> None:
    used = data * fsdp
    if used > available:
        raise MeshError(
            f"mesh.data x mesh.fsdp asks for {data} x {fsdp} devices, but there are "
            f"{available}. Use fewer, or -1 in one of them for the rest."
        )
    if jax.process_count() > 1 and used != available:
        raise MeshError(
            f"mesh.data x mesh.fsdp has {data} x {fsdp} devices, but the processes "
            f"have {available}, and none may be idle. Use -1 in one of them for the "
            "rest."
        )
    if batch_size % used != 0:
        raise MeshError(
            "the sequences read at a time (train.batch_size over train.accumulate) "
            "must be a multiple of mesh.data x mesh.fsdp, got "
            f"{batch_size}, data={data} and fsdp={fsdp}."
        )
    if width is not None and width % fsdp != 0:
        raise MeshError(
            f"model.d_model must be a multiple of mesh.fsdp, got d_model={width} and "
            f"fsdp={fsdp}."
        )


def batch_sharding(mesh: AnyMesh) -> NamedSharding:
    """The batch axis split over the devices."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: AnyMesh) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(mesh, REPLICATED)
