import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from titans_eqx.memory.features import WIDEST_PRODUCT, columns

INDICES = np.array([0, 2, 2, 1, 0])


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("width", [3, WIDEST_PRODUCT, WIDEST_PRODUCT + 1])
@pytest.mark.parametrize("rows", [(), (4,), (2, 4), (0,)])
def test_columns_are_picked_exactly(getkey, monkeypatch, platform, width, rows):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    x = jr.normal(getkey(), (*rows, width))
    picked, pull_back = jax.vjp(lambda x: columns(x, INDICES), x)
    np.testing.assert_array_equal(picked, np.asarray(x)[..., INDICES])
    slope = jr.normal(getkey(), picked.shape)
    (gradient,) = pull_back(slope)
    expected = np.zeros(x.shape)
    for n, index in enumerate(INDICES):
        expected[..., index] += np.asarray(slope, np.float64)[..., n]
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6)


def test_a_cpu_picks_columns_of_rows_by_a_product_and_of_one_row_by_indexing():
    def program(*shape):
        return str(jax.make_jaxpr(lambda x: columns(x, INDICES))(jnp.zeros(shape)))

    assert "dot_general" in program(4, 3)
    assert "dot_general" not in program(3) + program(4, WIDEST_PRODUCT + 1)
