"""What every test shares: several CPU devices, strict arrays, keys, float64.

Nothing here may import `titans_eqx` at top level: the hook that checks shapes
(`--jaxtyping-packages` in pyproject.toml) only sees modules imported after it.
"""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

N_DEVICES = 4
# What makes loops faster that run a few times here: 13 % of a large compilation.
LOOP_PASSES = (
    "simplify-while-loops",
    "while-loop-constant-sinking",
    "while-loop-invariant-code-motion",
    "while-loop-trip-count-annotator",
)
# Tests compile much and compute little: measured, half the time.
FASTER = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_use_fusion_emitters=false",  # gone in jaxlib 0.12
    f"--xla_disable_hlo_passes={','.join(LOOP_PASSES)}",
)
ARE_FLAGS_SET = "TITANS_EQX_TEST_FLAGS"


def known_flags(flags: tuple[str, ...]) -> list[str]:
    """Those that this jaxlib knows; a flag it does not know ends a process.

    Asking it costs less than a second, once for all workers of pytest-xdist, and needs
    no list of which version knows what; it names the unknown flags as it dies.
    """
    probe = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)},
        capture_output=True,
        text=True,
        check=False,
    )
    return [flag for flag in flags if flag not in probe.stderr]


# All must stand before the first `import jax` of the process; the values also reach
# the workers of pytest-xdist and the subprocesses that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TITANS_EQX_HUGE_PAGES"] = "0"  # nothing may start pytest again
# Workers have all of their memory in huge pages, what Python allocates included: where
# a page is dear, as in some virtual machines, up to a third of the time.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
os.environ.setdefault("PYTHONMALLOC", "malloc")
if ARE_FLAGS_SET not in os.environ:
    devices = f"--xla_force_host_platform_device_count={N_DEVICES}"
    flags = [os.environ.get("XLA_FLAGS", ""), devices, *known_flags(FASTER)]
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()
    os.environ[ARE_FLAGS_SET] = "1"

# Tracing makes many objects and few cycles: looking for them less often spares 4 % of
# the time.
gc.set_threshold(50_000, 20, 50)

from collections.abc import Callable, Iterator  # noqa: E402

# Workers, the scripts they start and the next run share what was compiled: the second
# run of the suite takes a third of the time of the first.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# No line of Python for each operation of a program: 4 % of tracing and compiling.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

import jax  # noqa: E402
import jax.random as jr  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from jaxtyping import PRNGKeyArray  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilation makes the first example slow, and a rerun should try the same examples.
settings.register_profile("reproducible", deadline=None, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=20_000)
settings.load_profile("reproducible")


MAPPINGS = Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def _bounded_mappings() -> Iterator[None]:
    """Forget what was compiled before Linux runs out of mappings for it.

    A process may hold 65,530 memory mappings; each compiled function takes several, and
    a worker that runs most of this suite comes there: then the compiler dies with a
    signal, in whatever test is running. No module takes more than a few thousand, and
    forgetting takes a quarter of a minute.
    """
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > 50_000:
        jax.clear_caches()


@pytest.fixture
def getkey() -> Callable[[], PRNGKeyArray]:
    """A function that returns a new key at each call, the same stream in every test."""
    state = {"key": jr.key(0)}

    def next_key() -> PRNGKeyArray:
        state["key"], key = jr.split(state["key"])
        return key

    return next_key


@pytest.fixture(scope="module")
def emptied(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A function that empties a folder and returns it, for tests of many examples."""
    folder = tmp_path_factory.mktemp("emptied")

    def empty() -> Path:
        shutil.rmtree(folder)
        folder.mkdir()
        return folder

    return empty


@pytest.fixture
def x64() -> Iterator[None]:
    """Run one test with 64-bit numbers as the default."""
    with jax.enable_x64(True):
        yield
