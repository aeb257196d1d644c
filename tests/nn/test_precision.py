import jax
import jax.numpy as jnp
import pytest

from titans_eqx.nn.precision import at_least_float32


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_half_precision_is_widened(dtype):
    assert at_least_float32(jnp.ones(2, dtype)).dtype == jnp.float32


def test_wide_numbers_stay_as_they_are():
    with jax.enable_x64(True):
        x = jnp.ones(2, jnp.float64)
        assert at_least_float32(x) is x
