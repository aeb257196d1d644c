import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from titans_eqx.nn.rows_product import rows_product

# Rows, width of the input and of the output; the first two have so few rows that a CPU,
# too, makes the gradient of the weights in one product.
SIZES = [
    ((1,), 6, 5),
    ((3, 2), 6, 5),
    ((7,), 2, 3),
    ((4, 9), 2, 3),
    ((3, 4, 9), 2, 3),
    ((0,), 2, 3),
    ((0, 4), 2, 3),
]


@pytest.fixture(params=SIZES, ids=str)
def operands(request, getkey, x64):
    rows, d_in, d_out = request.param
    return jr.normal(getkey(), (*rows, d_in)), jr.normal(getkey(), (d_out, d_in))


@pytest.fixture(params=["cpu", "tpu"])
def platform(request, monkeypatch):
    """What the gradient of the weights is made for."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)


def by_hand(x, weight, gradient):
    """The product and both gradients, row by row."""
    x, weight, gradient = (np.asarray(a, np.float64) for a in (x, weight, gradient))
    of_weight = np.zeros_like(weight)
    for row, slope in zip(
        x.reshape(-1, x.shape[-1]), gradient.reshape(-1, len(weight)), strict=True
    ):
        of_weight += np.outer(slope, row)
    return x @ weight.T, gradient @ weight, of_weight


@pytest.mark.usefixtures("platform")
def test_product_and_gradients_are_those_by_hand(operands, getkey):
    y, pull_back = jax.vjp(rows_product, *operands)
    gradient = jr.normal(getkey(), y.shape)
    expected = by_hand(*operands, gradient)
    for ours, theirs in zip((y, *pull_back(gradient)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("platform")
def test_derivatives_of_both_modes_and_orders(operands):
    def loss(x, weight):
        return jnp.sum(jnp.sin(rows_product(jnp.cos(x), jnp.sin(weight))))

    check_grads(loss, operands, order=2, modes=["fwd", "rev"])


@pytest.mark.parametrize("axes", [(0, None), (1, None), (None, 1), (0, 0), (1, 2)])
def test_batches_of_either_operand(axes, getkey, x64):
    shapes = [(5, 6), (4, 6)]
    operands = [
        jr.normal(getkey(), shape if axis is None else np.insert(shape, axis, 3))
        for shape, axis in zip(shapes, axes, strict=True)
    ]

    def loss(product, x, weight):
        return jnp.sum(jnp.sin(product(x, weight)))

    def grads(product):
        of_one = jax.grad(lambda *xs: loss(product, *xs), (0, 1))
        return jax.vmap(of_one, axes)(*operands)

    expected = grads(lambda x, weight: x @ weight.T)
    for ours, theirs in zip(grads(rows_product), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


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


@pytest.mark.parametrize("spec", [P("data"), P(None, "data")], ids=str)
def test_explicit_shardings_are_left_to_jax(spec):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    x = jnp.arange(24.0).reshape(2, 3, 4)
    weight = jnp.ones((5, 4))

    def gradients(x):
        return jax.grad(lambda *xs: jnp.sum(jnp.sin(rows_product(*xs))), (0, 1))(
            x, weight
        )

    with jax.set_mesh(mesh):
        sharded = jax.jit(gradients)(jax.device_put(x, NamedSharding(mesh, spec)))
    for ours, theirs in zip(sharded, gradients(x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
