import jax
import jax.numpy as jnp
import numpy as np

from titans_eqx.nn.tree import select


def test_every_leaf_comes_from_the_chosen_tree():
    one, other = (
        {"a": jnp.ones(2), "b": jnp.arange(3)},
        {
            "a": jnp.zeros(2),
            "b": -jnp.arange(3),
        },
    )
    for condition, expected in ((True, one), (False, other)):
        chosen = jax.jit(select)(jnp.asarray(condition), one, other)
        for name in expected:
            np.testing.assert_array_equal(chosen[name], expected[name])


def test_gradients_reach_the_chosen_tree_alone():
    def total(one, other):
        return jnp.sum(select(jnp.asarray(True), one, jnp.log(other)))

    by_one, by_other = jax.grad(total, argnums=(0, 1))(jnp.ones(2), jnp.ones(2))
    np.testing.assert_array_equal(by_one, 1)
    np.testing.assert_array_equal(by_other, 0)
