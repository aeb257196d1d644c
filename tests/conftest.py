"""What every test shares: several CPU devices, strict arrays, keys, float64.

Nothing here may import `titans_eqx` at top level: the hook that checks shapes
(`--jaxtyping-packages` in pyproject.toml) only sees modules imported after it.
"""

import os

N_DEVICES = 4

# Both must stand before the first `import jax` of the process; the values also reach
# the subprocesses that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        f"--xla_force_host_platform_device_count={N_DEVICES}",
        # Tests compile much and compute little: measured, a third less time.
        "--xla_backend_optimization_level=0",
    ]
).strip()

from collections.abc import Callable, Iterator  # noqa: E402

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
