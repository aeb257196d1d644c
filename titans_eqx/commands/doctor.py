"""What there is on this machine, and whether the software works on it."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from typing import Final

import click
import jax

from titans_eqx.commands.huge_pages import CHOICE, TUNABLES, VARIABLE
from titans_eqx.errors import UserError
from titans_eqx.evaluation.self_test import self_test
from titans_eqx.sharding.capacity import host_bytes
from titans_eqx.sharding.mesh import usable_cores

PACKAGES: Final = (
    *("titans_eqx", "jax", "jaxlib", "equinox", "optax", "orbax-checkpoint", "grain"),
    *("numpy", "tokenizers", "safetensors", "tensorboardx", "matplotlib", "lm_eval"),
)
VARIABLES: Final = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", TUNABLES, VARIABLE)
PREFIXES: Final = ("JAX_", "CUDA_VISIBLE", "XLA_PYTHON_CLIENT")
OPTIMISATION: Final = "xla_backend_optimization_level"
GIB: Final = 2**30


class SelfTestError(UserError):
    """Something does not work on this machine."""

    exit_code = 1


def doctor() -> None:
    """Print versions, devices and settings, and test a tiny model.

    Raises:
        SelfTestError: If a test fails.
    """
    for line in (*_environment(), *_devices()):
        click.echo(line)
    failed = 0
    for outcome in self_test():
        failed += bool(outcome.failure)
        verdict = f"failed: {outcome.failure}" if outcome.failure else "ok"
        click.echo(f"{outcome.claim}: {verdict} ({outcome.seconds:.1f} s)")
    if failed:
        raise SelfTestError(f"{failed} of the tests above failed on this machine.")


def _environment() -> Iterator[str]:
    """Lines about what programs of ours run on here, but for the devices."""
    yield f"python           {sys.version.split()[0]} on {platform.platform()}"
    for name in PACKAGES:
        yield f"{name:<17}{_version(name)}"
    yield f"cores            {usable_cores()}, memory {host_bytes() / GIB:.1f} GiB"
    yield f"huge pages       {_huge_pages()}"
    for name in sorted(os.environ):
        if name in VARIABLES or name.startswith(PREFIXES):
            yield f"{name}={os.environ[name]}"


def _devices() -> Iterator[str]:
    # Before the first use of a device: on a CPU, code that is not optimised is compiled
    # in half the time.
    flags = os.environ.get("XLA_FLAGS", "")
    if OPTIMISATION not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{OPTIMISATION}=0".strip()
    for device in jax.devices():
        limit = (device.memory_stats() or {}).get("bytes_limit")
        memory = "" if limit is None else f", {limit / GIB:.1f} GiB"
        yield f"device {device.id:<10}{device.platform}: {device.device_kind}{memory}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _huge_pages() -> str:
    try:
        return CHOICE.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return "not known"
