"""What every test shares: several CPU devices, strict arrays, keys, float64.

Nothing here may import `titans_eqx` at top level: the hook that checks shapes
(`--jaxtyping-packages` in pyproject.toml) only sees modules imported after it.
"""

import os
from pathlib import Path

N_DEVICES = 4

# All must stand before the first `import jax` of the process; the values also reach
# the subprocesses that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TITANS_EQX_HUGE_PAGES"] = "0"  # nothing may start pytest again
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        f"--xla_force_host_platform_device_count={N_DEVICES}",
        # Tests compile much and compute little: measured, half the time.
        "--xla_backend_optimization_level=0",
        "--xla_cpu_parallel_codegen_split_count=1",
        "--xla_cpu_use_fusion_emitters=false",
    ]
).strip()

from collections.abc import Callable, Iterator  # noqa: E402

# Workers, the scripts they start and the next run share what was compiled: the second
# run of the suite takes a third of the time of the first.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax  # noqa: E402
import jax.random as jr  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from jaxtyping import PRNGKeyArray  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilation makes the first example slow, and a rerun should try the same examples.
settings.register_profile("reproducible", deadline=None, derandomize=True)
settings.load_profile("reproducible")


MAPPINGS = Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def _bounded_mappings() -> Iterator[None]:
    """Forget what was compiled before Linux runs out of mappings for it.

    A process may hold 65,530 memory mappings; each compiled function takes several, and
    a worker that runs half of this suite comes to 50,000: then the compiler dies with
    a signal, in whatever test is running.
    """
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


@pytest.fixture
def getkey() -> Callable[[], PRNGKeyArray]:
    """A function that returns a new key at each call, the same stream in every test."""
    state = {"key": jr.key(0)}

    def next_key() -> PRNGKeyArray:
        state["key"], key = jr.split(state["key"])
        return key

    return next_key


@pytest.fixture
def x64() -> Iterator[None]:
    """Run one test with 64-bit numbers as the default."""
    with jax.enable_x64(True):
        yield
