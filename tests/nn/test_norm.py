import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles import blocks, memory
from titans_eqx.nn import standardize, unit_norm


@pytest.fixture
def rows(x64):
    return jnp.asarray(np.random.default_rng(0).normal(size=(5, 6)))


def test_unit_norm_equals_the_oracle(rows):
    np.testing.assert_allclose(unit_norm(rows), blocks.unit_norm(rows))


def test_standardize_equals_the_oracle(rows):
    expected = [memory.layer_norm(row) for row in np.asarray(rows)]
    np.testing.assert_allclose(standardize(rows), expected)


@pytest.mark.parametrize("normalise", [unit_norm, standardize])
@pytest.mark.parametrize("x", [0.0, 1e-30, 1e15])
def test_values_and_gradients_are_finite_for_equal_entries(normalise, x):
    row = jnp.full((4,), x, jnp.float32)
    assert np.all(np.isfinite(normalise(row)))
    assert np.all(np.isfinite(jax.jacobian(normalise)(row)))


@pytest.mark.parametrize("normalise", [unit_norm, standardize])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtype_is_kept(normalise, dtype):
    assert normalise(jnp.ones((2, 3), dtype)).dtype == dtype
