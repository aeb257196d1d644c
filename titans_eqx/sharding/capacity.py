"""How much memory there is for the devices of this process."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jax.sharding import Mesh

CGROUPS: Final = Path("/proc/self/cgroup")
CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
# Files of a control group, in its two versions, and the folder of the second's group.
LIMITS: Final = {"": "memory.max", "memory": "memory.limit_in_bytes"}


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Memory, and the devices that share it."""

    n_bytes: int
    n_devices: int

    @classmethod
    def of(cls, mesh: Mesh) -> "Capacity":
        """That of a mesh: CPU devices share the machine's, others have their own."""
        local = mesh.local_devices
        limits = [(device.memory_stats() or {}).get("bytes_limit") for device in local]
        own = [limit for limit in limits if limit is not None]
        if len(own) == len(local):
            return cls(n_bytes=min(own), n_devices=1)
        return cls(n_bytes=host_bytes(), n_devices=len(local))


def host_bytes() -> int:
    """Memory that this process may use: the machine's, or less in a container."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *_cgroup_limits()])


def _cgroup_limits() -> Iterator[int]:
    """The limits of the control groups of this process, and of those around them."""
    try:
        lines = CGROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        name = "memory" if "memory" in controllers.split(",") else controllers
        if name not in LIMITS:
            continue
        group = CGROUP_ROOT / name / path.lstrip("/")
        for folder in (group, *group.parents):
            try:
                yield int((folder / LIMITS[name]).read_text())
            except (OSError, ValueError):  # no such file, or "max"
                continue
