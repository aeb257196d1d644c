import jax
import jax.numpy as jnp
import numpy as np

from titans_eqx.nn.tree import n_bytes, n_elements, select


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


def test_arrays_are_counted_whether_made_or_not():
    def make():
        return {
            "a": jnp.zeros((2, 3)),
            "b": (jnp.ones((), jnp.int32), jnp.ones(4, bool)),
        }

    for tree in (make(), jax.eval_shape(make)):
        assert n_elements(tree) == 6 + 1 + 4
        assert n_bytes(tree) == 6 * 4 + 4 + 4
