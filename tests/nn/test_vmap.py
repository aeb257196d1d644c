import jax
import jax.numpy as jnp
import numpy as np
import pytest

from titans_eqx.nn.vmap import vmap


def energy(x, tree):
    y = jnp.sin(x) * tree["scale"]
    return {"rows": y, "sum": jnp.sum(y**2)}


@pytest.mark.parametrize("size", [1, 3])
def test_values_and_gradients_are_those_of_jax(size):
    x = jnp.arange(4.0 * size).reshape(size, 2, 2)
    tree = {"scale": jnp.linspace(1.0, 2.0, size)}

    def total(mapped, x, tree):
        return jnp.sum(mapped(energy)(x, tree)["sum"])

    ours, theirs = vmap(energy)(x, tree), jax.vmap(energy)(x, tree)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    ours, theirs = (
        jax.grad(total, argnums=(1, 2))(mapped, x, tree) for mapped in (vmap, jax.vmap)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize(("size", "shape"), [(1, (2, 5)), (3, (3, 2, 5))])
def test_one_element_has_no_axis(size, shape):
    program = jax.make_jaxpr(vmap(lambda x: jnp.sum(x * x, axis=1)))
    equations = program(jnp.ones((size, 2, 5))).eqns
    (product,) = (one for one in equations if one.primitive.name == "mul")
    assert product.outvars[0].aval.shape == shape


def test_an_axis_of_size_one_beside_a_longer_one_is_refused():
    with pytest.raises(ValueError, match="inconsistent sizes"):
        vmap(jnp.add)(jnp.ones((1, 2)), jnp.ones((3, 2)))
