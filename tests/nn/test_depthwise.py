import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from titans_eqx.nn.depthwise import depthwise_product

# Batch, rows of the result, taps, channels; on a CPU the gradient of the kernel adds up
# four parts of the rows if they can be cut into as many.
SIZES = [
    ((), 8, 3, 2),
    ((), 7, 3, 2),
    ((), 1, 4, 2),
    ((), 0, 3, 2),
    ((2,), 8, 1, 3),
    ((2, 3), 4, 5, 2),
    ((0,), 4, 2, 3),
]


@pytest.fixture(params=SIZES, ids=str)
def operands(request, getkey, x64):
    batch, length, n_taps, channels = request.param
    rows = jr.normal(getkey(), (*batch, length + n_taps - 1, channels))
    return rows, jr.normal(getkey(), (n_taps, channels))


@pytest.fixture(params=["cpu", "tpu"])
def platform(request, monkeypatch):
    """What the gradient of the kernel is made for."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)


def by_hand(rows, kernel, gradient):
    """The product and both gradients, number by number."""
    rows, kernel, gradient = (
        np.asarray(a, np.float64) for a in (rows, kernel, gradient)
    )
    y, of_rows, of_kernel = map(np.zeros_like, (gradient, rows, kernel))
    for *batch, t, channel in np.ndindex(*gradient.shape):
        for tap in range(len(kernel)):
            here, there = (*batch, t, channel), (*batch, t + tap, channel)
            y[here] += kernel[tap, channel] * rows[there]
            of_rows[there] += kernel[tap, channel] * gradient[here]
            of_kernel[tap, channel] += rows[there] * gradient[here]
    return y, of_rows, of_kernel


@pytest.mark.usefixtures("platform")
def test_product_and_gradients_are_those_by_hand(operands, getkey):
    y, pull_back = jax.vjp(depthwise_product, *operands)
    gradient = jr.normal(getkey(), y.shape)
    expected = by_hand(*operands, gradient)
    for ours, theirs in zip((y, *pull_back(gradient)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("platform")
def test_derivatives_of_both_modes_and_orders(operands):
    def loss(rows, kernel):
        return jnp.sum(jnp.sin(depthwise_product(jnp.cos(rows), jnp.sin(kernel))))

    check_grads(loss, operands, order=2, modes=["fwd", "rev"])


@pytest.mark.parametrize("axes", [(0, None), (2, None), (None, 1), (0, 0), (1, 2)])
def test_batches_of_either_operand(axes, getkey, x64):
    operands = [
        jr.normal(getkey(), shape if axis is None else np.insert(shape, axis, 3))
        for shape, axis in zip([(10, 2), (3, 2)], axes, strict=True)
    ]

    def loss(product, rows, kernel):
        return jnp.sum(jnp.sin(product(rows, kernel)))

    def plain(rows, kernel):
        return sum(tap[None] * rows[i : i + 8] for i, tap in enumerate(kernel))

    def grads(product):
        of_one = jax.grad(lambda *xs: loss(product, *xs), (0, 1))
        return jax.vmap(of_one, axes)(*operands)

    for ours, theirs in zip(grads(depthwise_product), grads(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_half_precision_adds_up_in_full():
    rows = jnp.ones((4 * 300, 1), jnp.bfloat16)
    y, pull_back = jax.vjp(depthwise_product, rows, jnp.ones((1, 1), jnp.bfloat16))
    of_rows, of_kernel = pull_back(jnp.ones_like(y))
    assert {y.dtype, of_rows.dtype, of_kernel.dtype} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_array_equal(of_kernel, jnp.full((1, 1), 1200, jnp.bfloat16))


def test_explicit_shardings_are_left_to_jax():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    rows, kernel = jnp.arange(24.0).reshape(2, 6, 2), jnp.ones((3, 2))

    def gradients(rows):
        return jax.grad(lambda *xs: jnp.sum(jnp.sin(depthwise_product(*xs))), (0, 1))(
            rows, kernel
        )

    with jax.set_mesh(mesh):
        placed = jax.device_put(rows, NamedSharding(mesh, P("data")))
        sharded = jax.jit(gradients)(placed)
    for ours, theirs in zip(sharded, gradients(rows), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
