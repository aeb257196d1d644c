import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest

from titans_eqx.nn.linear import linear_rows


@pytest.mark.parametrize("n_rows", [0, 1, 5])
def test_rows_are_mapped_one_by_one(getkey, n_rows):
    linear = eqx.nn.Linear(3, 4, use_bias=False, key=getkey())
    x = jr.normal(getkey(), (n_rows, 3))
    np.testing.assert_allclose(linear_rows(linear, x), jax.vmap(linear)(x), rtol=1e-6)
