import equinox as eqx
import jax.random as jr
import numpy as np
import pytest

from titans_eqx.nn.linear import linear_rows


@pytest.mark.parametrize("n_rows", [0, 1, 5])
def test_rows_are_mapped_one_by_one(getkey, n_rows):
    linear = eqx.nn.Linear(3, 4, use_bias=False, key=getkey())
    x = jr.normal(getkey(), (n_rows, 3))
    by_hand = np.asarray(x) @ np.asarray(linear.weight).T
    np.testing.assert_allclose(linear_rows(linear, x), by_hand, rtol=1e-5)


def test_a_bias_is_refused(getkey):
    linear = eqx.nn.Linear(3, 4, key=getkey())
    with pytest.raises(ValueError, match="without bias"):
        linear_rows(linear, jr.normal(getkey(), (2, 3)))
