import os

import pytest

from titans_eqx.sharding import capacity
from titans_eqx.sharding.capacity import Capacity, host_bytes
from titans_eqx.sharding.mesh import build_mesh

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that sets the control groups of this process and their limits."""
    monkeypatch.setattr(capacity, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(capacity, "CGROUP_ROOT", tmp_path / "groups")

    def write(groups, **limits):
        (tmp_path / "cgroup").write_text(groups)
        for path, limit in limits.items():
            file = tmp_path / "groups" / path.replace("__", "/").replace("_DOT_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{limit}\n")

    return write


def test_without_control_groups_it_is_the_memory_of_the_machine(machine):
    assert host_bytes() == MACHINE
    machine("1:cpu:/\n0::/\n", memory_DOT_max="max")
    assert host_bytes() == MACHINE


def test_the_smallest_limit_of_a_control_group_and_those_around_it_counts(machine):
    limits = {"memory_DOT_max": "max", "a__memory_DOT_max": 5000}
    machine("0::/a/b\n", **limits, a__b__memory_DOT_max=7000)
    assert host_bytes() == 5000


def test_groups_of_the_first_version_are_known(machine):
    limit = {"memory__job__memory_DOT_limit_in_bytes": 3000}
    machine("4:memory,hugetlb:/job\n0::/\n", **limit)
    assert host_bytes() == 3000
    machine("4:memory:/elsewhere\n", memory__memory_DOT_limit_in_bytes=2**63 - 4096)
    assert host_bytes() == MACHINE


def test_devices_without_memory_of_their_own_share_the_machine():
    mesh = build_mesh(4, data=2)
    assert Capacity.of(mesh) == Capacity(n_bytes=host_bytes(), n_devices=2)
