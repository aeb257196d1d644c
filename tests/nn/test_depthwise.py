import jax
import jax.numpy as jnp
import numpy as np

from titans_eqx.nn.depthwise import depthwise_product


def test_half_precision_adds_up_in_full():
    rows = jnp.ones((4 * 300, 1), jnp.bfloat16)
    y, pull_back = jax.vjp(depthwise_product, rows, jnp.ones((1, 1), jnp.bfloat16))
    of_rows, of_kernel = pull_back(jnp.ones_like(y))
    assert {y.dtype, of_rows.dtype, of_kernel.dtype} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_array_equal(of_kernel, jnp.full((1, 1), 1200, jnp.bfloat16))
