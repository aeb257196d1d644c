import equinox as eqx
import jax.random as jr
import numpy as np
import pytest

from titans_eqx.nn.linear import linear_rows


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("shape", [(3,), (0, 3), (1, 3), (5, 3), (2, 5, 3)])
def test_rows_are_mapped_one_by_one(getkey, shape, use_bias):
    linear = eqx.nn.Linear(3, 4, use_bias=use_bias, key=getkey())
    x = jr.normal(getkey(), shape)
    by_hand = np.asarray(x) @ np.asarray(linear.weight).T
    if linear.bias is not None:
        by_hand += np.asarray(linear.bias)
    np.testing.assert_allclose(linear_rows(linear, x), by_hand, rtol=1e-5)
