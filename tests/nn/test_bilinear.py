"""What the products with gradients of their own have in common."""

from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from titans_eqx.nn.depthwise import depthwise_product
from titans_eqx.nn.rows_product import rows_product


def rows_by_hand(x, weight, gradient):
    """The product and both gradients, row by row."""
    of_weight = np.zeros_like(weight)
    for row, slope in zip(
        x.reshape(-1, x.shape[-1]), gradient.reshape(-1, len(weight)), strict=True
    ):
        of_weight += np.outer(slope, row)
    return x @ weight.T, gradient @ weight, of_weight


def taps_by_hand(rows, kernel, gradient):
    """The product and both gradients, number by number."""
    y, of_rows, of_kernel = map(np.zeros_like, (gradient, rows, kernel))
    for *batch, t, channel in np.ndindex(*gradient.shape):
        for tap in range(len(kernel)):
            here, there = (*batch, t, channel), (*batch, t + tap, channel)
            y[here] += kernel[tap, channel] * rows[there]
            of_rows[there] += kernel[tap, channel] * gradient[here]
            of_kernel[tap, channel] += rows[there] * gradient[here]
    return y, of_rows, of_kernel


BY_HAND = {rows_product: rows_by_hand, depthwise_product: taps_by_hand}
# The first two have so few rows that a CPU, too, makes the gradient of the weights in
# one product.
CASES = [(rows_product, (*rows, 6), (5, 6)) for rows in [(1,), (3, 2)]]
CASES += [
    (rows_product, (*rows, 2), (3, 2))
    for rows in [(7,), (4, 9), (3, 4, 9), (0,), (0, 4)]
]
# Batch, rows of the result, taps, channels; on a CPU the gradient of the kernel adds up
# four parts of the rows if they can be cut into as many.
CASES += [
    (depthwise_product, (*batch, length + taps - 1, channels), (taps, channels))
    for batch, length, taps, channels in [
        ((), 8, 3, 2),
        ((), 7, 3, 2),
        ((), 1, 4, 2),
        ((), 0, 3, 2),
        ((2,), 8, 1, 3),
        ((2, 3), 4, 5, 2),
        ((0,), 4, 2, 3),
    ]
]
cases = pytest.mark.parametrize(
    ("product", "x", "weight"),
    CASES,
    ids=[f"{product.__name__}-{x}-{weight}" for product, x, weight in CASES],
)


@pytest.fixture(params=["cpu", "tpu"])
def platform(request, monkeypatch):
    """What the gradient of the weights is made for."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)


@cases
@pytest.mark.usefixtures("platform", "x64")
def test_product_and_gradients_are_those_by_hand(product, x, weight):
    @jax.jit
    def product_and_gradients(x, weight, gradient):
        y, pull_back = jax.vjp(product, x, weight)
        return y, *pull_back(gradient)

    rng = np.random.default_rng(0)
    operands = rng.normal(size=x), rng.normal(size=weight)
    gradient = rng.normal(size=jax.eval_shape(product, *operands).shape)
    actual = product_and_gradients(*operands, gradient)
    expected = BY_HAND[product](*operands, gradient)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@cases
@pytest.mark.usefixtures("platform", "x64")
def test_derivatives_of_both_modes_and_orders(product, x, weight):
    @jax.jit  # many of its operations are compiled as one program in place of many
    def loss(x, weight):
        return jnp.sum(jnp.sin(product(jnp.cos(x), jnp.sin(weight))))

    rng = np.random.default_rng(0)
    operands = rng.normal(size=x), rng.normal(size=weight)
    check_grads(loss, operands, order=2, modes=["fwd", "rev"])


def plain_rows(x, weight):
    return x @ weight.T


def plain_taps(rows, kernel):
    length = len(rows) - len(kernel) + 1
    return sum(tap[None] * rows[i : i + length] for i, tap in enumerate(kernel))


@pytest.mark.parametrize(
    ("product", "plain", "shapes"),
    [
        (rows_product, plain_rows, [(5, 6), (4, 6)]),
        (depthwise_product, plain_taps, [(10, 2), (3, 2)]),
    ],
)
@pytest.mark.parametrize(
    "axes", [(0, None), (1, None), (2, None), (None, 1), (0, 0), (1, 2)]
)
def test_batches_of_either_operand(product, plain, shapes, axes, x64):
    rng = np.random.default_rng(0)
    operands = [
        rng.normal(size=shape if axis is None else np.insert(shape, axis, 3))
        for shape, axis in zip(shapes, axes, strict=True)
    ]

    def grads(product):
        def loss(x, weight):
            return jnp.sum(jnp.sin(product(x, weight)))

        return jax.jit(jax.vmap(jax.grad(loss, (0, 1)), axes))(*operands)

    for ours, theirs in zip(grads(product), grads(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@partial(jax.jit, static_argnums=0)
def gradients(product, x, weight):
    def loss(x, weight):
        return jnp.sum(jnp.sin(jax.vmap(product, (0, None))(x, weight)))

    return jax.grad(loss, (0, 1))(x, weight)


@pytest.mark.parametrize(
    ("product", "rows", "weight"),
    [(rows_product, (5, 6), (4, 6)), (depthwise_product, (10, 6), (3, 6))],
)
def test_each_device_takes_a_part_of_the_batch(product, rows, weight, getkey, x64):
    n_devices = jax.device_count()
    x = jr.normal(getkey(), (2 * n_devices, *rows))
    weight = jr.normal(getkey(), weight)
    mesh = jax.make_mesh((n_devices,), ("data",), axis_types=(AxisType.Auto,))
    # The weights vary over no axis, so their gradient arrives summed over the devices.
    on_devices = jax.shard_map(
        lambda x, weight: gradients(product, x, weight),
        mesh=mesh,
        in_specs=(P("data"), P()),
        out_specs=(P("data"), P()),
    )
    expected = gradients(product, x, weight)
    for ours, theirs in zip(jax.jit(on_devices)(x, weight), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("product", "x", "weight", "spec"),
    [
        (rows_product, (2, 3, 4), (5, 4), P("data")),
        (rows_product, (2, 3, 4), (5, 4), P(None, "data")),
        (depthwise_product, (2, 6, 2), (3, 2), P("data")),
    ],
)
def test_explicit_shardings_are_left_to_jax(product, x, weight, spec):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    x, weight = jnp.arange(24.0).reshape(x), jnp.ones(weight)

    def gradients(x):
        return jax.grad(lambda *xs: jnp.sum(jnp.sin(product(*xs))), (0, 1))(x, weight)

    with jax.set_mesh(mesh):
        sharded = jax.jit(gradients)(jax.device_put(x, NamedSharding(mesh, spec)))
    for ours, theirs in zip(sharded, gradients(x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
