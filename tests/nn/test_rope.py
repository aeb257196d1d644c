import jax.numpy as jnp
import numpy as np

from tests.oracles import blocks as oracle
from titans_eqx.nn import rotate


def test_equals_the_oracle(x64):
    x = np.random.default_rng(0).normal(size=(4, 2, 6))
    positions = [0, 3, 1, 100]
    turned = rotate(jnp.asarray(x), jnp.asarray(positions), base=500.0)
    expected = [
        [oracle.rotate(head, position, base=500.0) for head in row]
        for row, position in zip(x, positions, strict=True)
    ]
    np.testing.assert_allclose(turned, expected, atol=1e-12)


def test_products_depend_on_the_difference_of_positions_only(x64):
    query, key = jnp.asarray(np.random.default_rng(1).normal(size=(2, 1, 1, 8)))

    def product(i, j):
        turned = (
            rotate(x, jnp.asarray([p]), base=1e4) for x, p in ((query, i), (key, j))
        )
        return float(jnp.sum(jnp.prod(jnp.stack(list(turned)), axis=0)))

    np.testing.assert_allclose(product(5, 2), product(63, 60))
    assert abs(product(5, 2) - product(5, 3)) > 1e-3


def test_dtype_is_kept():
    x = jnp.ones((2, 1, 4), jnp.bfloat16)
    assert rotate(x, jnp.arange(2), base=1e4).dtype == jnp.bfloat16


def test_half_precision_turns_by_exact_positions():
    x = jnp.ones((2, 1, 4), jnp.bfloat16)
    far = rotate(x, jnp.asarray([1000, 1001]), base=1e4)
    exact = rotate(x.astype(jnp.float32), jnp.asarray([1000, 1001]), base=1e4)
    eps = float(jnp.finfo(jnp.bfloat16).eps)
    np.testing.assert_allclose(far.astype(jnp.float32), exact, atol=4 * eps)
