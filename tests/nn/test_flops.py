import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from scripts.benchmark.case import read_setting
from titans_eqx.memory.features import columns
from titans_eqx.models import build_model
from titans_eqx.nn.flops import count_flops
from titans_eqx.nn.rows_product import rows_product

ROWS, INNER, COLUMNS, STEPS = 3, 5, 7, 11
A = jnp.ones((ROWS, INNER))
B = jnp.ones((INNER, COLUMNS))
SQUARE = jnp.ones((INNER, INNER))
PRODUCT = 2 * ROWS * INNER * COLUMNS
SQUARE_PRODUCT = 2 * ROWS * INNER * INNER


def scanned(a):
    return jax.lax.scan(lambda a, _: (a @ SQUARE, None), a, length=STEPS)[0]


def scanned_twice(a):
    return jax.lax.scan(lambda a, _: (scanned(a), None), a, length=2)[0]


def one_of_two(a):
    return jax.lax.cond(a.sum() > 0, lambda a: a @ SQUARE @ SQUARE, lambda a: a, a)


CASES = {
    "product": (lambda: A @ B, PRODUCT),
    "no product": (lambda: jnp.sum(jnp.exp(A) * 2.0), 0),
    "columns": (lambda: columns(A, np.array([0, 2, 2])), 0),
    "gradient of columns": (
        lambda: jax.grad(lambda a: jnp.sum(columns(a, np.array([0, 2])) ** 2))(A),
        0,
    ),
    "rows": (lambda: rows_product(A, B.T), PRODUCT),
    "sum of products": (lambda: jnp.vdot(A, A), 2 * ROWS * INNER),
    "jit": (lambda: jax.jit(jnp.matmul)(A, B), PRODUCT),
    "scan": (lambda: scanned(A), STEPS * SQUARE_PRODUCT),
    "scan of scan": (lambda: scanned_twice(A), 2 * STEPS * SQUARE_PRODUCT),
    "vmap": (
        lambda: jax.vmap(lambda row: row @ B)(A),
        PRODUCT,
    ),
    "vmap of product": (
        lambda: jax.vmap(lambda a: a @ B)(jnp.stack([A, A, A, A])),
        4 * PRODUCT,
    ),
    "vmap of scan": (
        lambda: jax.vmap(scanned)(jnp.stack([A, A])),
        2 * STEPS * SQUARE_PRODUCT,
    ),
    "remat": (lambda: jax.checkpoint(jnp.matmul)(A, B), PRODUCT),
    "cond": (lambda: one_of_two(A), 2 * SQUARE_PRODUCT),
    "gradient": (
        lambda: jax.grad(lambda a, b: jnp.sum((a @ b) ** 2), argnums=(0, 1))(A, B),
        3 * PRODUCT,
    ),
    "while without product": (
        lambda: jax.lax.while_loop(lambda i: i < 3, lambda i: i + 1, 0),
        0,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_products_are_counted(name):
    function, expected = CASES[name]
    assert count_flops(function) == expected


def test_shapes_are_enough():
    shapes = jax.eval_shape(lambda: (A, B))
    assert count_flops(jnp.matmul, *shapes) == PRODUCT


def test_each_device_of_a_mesh_counts():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")
    rows = jnp.ones((2 * ROWS, INNER))
    function = jax.shard_map(lambda a: a @ B, mesh=mesh, in_specs=spec, out_specs=spec)
    assert count_flops(function, rows) == 2 * PRODUCT


def test_products_in_a_loop_of_unknown_length_are_refused():
    def until_large(a):
        return jax.lax.while_loop(lambda a: a.sum() < 1e9, lambda a: a @ SQUARE, a)

    with pytest.raises(ValueError, match="write it as a scan"):
        count_flops(until_large, A)


def test_products_of_a_model_grow_with_its_text():
    config = read_setting(["model.d_model=16", "model.memory.chunk_len=16"]).model

    def read(tokens):
        return build_model(config, key=jr.key(0))(tokens)[0]

    def counted(n_segments):
        n_tokens = n_segments * config.attention.segment_len
        return count_flops(read, jax.ShapeDtypeStruct((n_tokens,), jnp.int32))

    two, three, four = counted(2), counted(3), counted(4)
    head = 2 * config.attention.segment_len * config.d_model * config.vocab_size
    assert four - three == three - two > head
