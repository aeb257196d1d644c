import jax
import numpy as np
import pytest

from tests.oracles import blocks as oracle
from titans_eqx.nn import SwiGLU
from titans_eqx.nn.feedforward import gated


@pytest.mark.parametrize("shape", [(4,), (1, 4), (5, 4)])
def test_equals_the_oracle(x64, getkey, shape):
    feed = SwiGLU(4, 6, key=getkey())
    x = jax.random.normal(getkey(), shape)
    weights = (
        np.asarray(linear.weight).T
        for linear in (feed.gate_projection, feed.in_projection, feed.out_projection)
    )
    expected = oracle.swiglu(np.asarray(x), *weights)
    np.testing.assert_allclose(feed(x), expected, atol=1e-12)


def test_gradients_are_those_of_autodiff(x64, getkey):
    gate, inside, weight = 3 * jax.random.normal(getkey(), (3, 5, 6))

    def by_autodiff(gate, inside):
        return jax.nn.silu(gate) * inside

    def gradients(function):
        return jax.grad(lambda *x: (weight * function(*x)).sum(), (0, 1))(gate, inside)

    np.testing.assert_allclose(
        gradients(gated), gradients(by_autodiff), rtol=1e-12, atol=1e-12
    )


def test_two_arrays_are_kept_for_the_backward_pass(getkey):
    gate, inside = jax.random.normal(getkey(), (2, 5, 6))
    _, pull_back = jax.vjp(gated, gate, inside)
    kept = [leaf for leaf in jax.tree.leaves(pull_back) if leaf.shape == gate.shape]
    assert len(kept) == 2
