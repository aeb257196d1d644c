import jax
import jax.numpy as jnp

from titans_eqx.nn.rows_product import rows_product


def test_the_gradient_of_shared_weights_is_one_product_for_each_row_of_a_batch():
    batch, length, d_in, d_out = 3, 32, 4, 8

    def loss(weight, x):
        return jnp.sum(jax.vmap(rows_product, (0, None))(x, weight))

    def shapes(length):
        operands = jnp.zeros((d_out, d_in)), jnp.zeros((batch, length, d_in))
        jaxpr = jax.make_jaxpr(jax.grad(loss))(*operands)
        return [
            equation.outvars[0].aval.shape
            for equation in jaxpr.eqns
            if equation.primitive.name == "dot_general"
        ]

    assert shapes(length) == [(batch, d_out, d_in)]
    # No larger than what is multiplied.
    assert shapes(1) == [(d_in, d_out)]


def test_precision_is_that_of_jax_when_it_is_called():
    def product_and_gradients(x, weight):
        y, pull_back = jax.vjp(rows_product, x, weight)
        return y, pull_back(y)

    operands = jnp.zeros((2, 3)), jnp.zeros((4, 3))
    with jax.default_matmul_precision("highest"):
        traced = jax.jit(product_and_gradients).trace(*operands)
    text = traced.lower().as_text()
    assert text.count("dot_general") == text.count("[HIGHEST, HIGHEST]") == 3


def test_half_precision_stays_what_it_is():
    x, weight = jnp.ones((2, 3), jnp.bfloat16), jnp.ones((4, 3), jnp.bfloat16)
    y, pull_back = jax.vjp(rows_product, x, weight)
    assert {y.dtype, *(g.dtype for g in pull_back(y))} == {jnp.dtype(jnp.bfloat16)}
