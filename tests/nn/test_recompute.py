import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from titans_eqx.benchmark.flops import count_flops
from titans_eqx.nn.recompute import keep, recomputed
from titans_eqx.nn.varying import scan


def loss(transform, w, x):
    """A scan of batched products, which are recomputed unless they are kept."""

    def body(carry, x):
        y = jnp.tanh(keep(jnp.einsum("hij,hjk->hik", carry, x)))
        return carry + y, y

    return jnp.sum(scan(transform(body), w, x)[1] ** 2)


def test_kept_products_are_not_done_again(getkey):
    w, x = jr.normal(getkey(), (2, 3, 3)), jr.normal(getkey(), (5, 2, 3, 3))

    def gradient(transform):
        return jax.grad(lambda w, x: loss(transform, w, x), argnums=(0, 1))

    plain = count_flops(gradient(lambda body: body), w, x)
    assert count_flops(gradient(recomputed), w, x) == plain
    assert count_flops(gradient(jax.checkpoint), w, x) > plain
    for ours, theirs in zip(
        gradient(recomputed)(w, x), gradient(lambda body: body)(w, x), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
