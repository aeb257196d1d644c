import jax
import numpy as np

from tests.oracles import blocks as oracle
from titans_eqx.nn import SwiGLU


def test_equals_the_oracle(x64, getkey):
    feed = SwiGLU(4, 6, key=getkey())
    x = jax.random.normal(getkey(), (5, 4))
    weights = (
        np.asarray(linear.weight).T
        for linear in (feed.gate_projection, feed.in_projection, feed.out_projection)
    )
    expected = oracle.swiglu(np.asarray(x), *weights)
    np.testing.assert_allclose(jax.vmap(feed)(x), expected, atol=1e-12)
