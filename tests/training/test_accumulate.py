import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.models.small import VOCAB, small_config, small_model
from titans_eqx.sharding.mesh import batch_sharding, build_mesh, replicated
from titans_eqx.training.accumulate import in_microbatches
from titans_eqx.training.loss import batch_loss
from titans_eqx.training.state import init_train_state
from titans_eqx.training.step import build_eval_step, build_train_step

pytestmark = pytest.mark.usefixtures("optax_promotion", "double_precision")

BATCH, SEQ_LEN = 8, 6
TOLERANCE = 1e-10  # float64; sums in another order


def draw_batch(rng):
    """Rows whose tokens are not scored evenly."""
    tokens = rng.integers(VOCAB, size=(BATCH, SEQ_LEN + 1), dtype=np.int32)
    mask = rng.random((BATCH, SEQ_LEN)) < np.linspace(0, 1, BATCH)[:, None]
    return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "mask": mask}


def first_state(mesh, optimizer):
    config = small_config(pattern="transformer", n_layers=1)
    state, static = init_train_state(small_model(config), optimizer)
    return jax.device_put(jax.tree.map(np.array, state), replicated(mesh)), static


def two_steps(n_devices, accumulate):
    """State and metrics after two steps."""
    mesh = build_mesh(BATCH, data=n_devices)
    optimizer = optax.sgd(0.1)
    state, static = first_state(mesh, optimizer)
    step = build_train_step(optimizer, static, mesh, accumulate=accumulate)
    rng = np.random.default_rng(0)
    for _ in range(2):
        batch = jax.device_put(draw_batch(rng), batch_sharding(mesh))
        state, metrics = step(state, batch)
    return jax.device_get((state, metrics))


@pytest.fixture(scope="module")
def whole(optax_promotion, double_precision):
    return two_steps(1, 1)


def assert_alike(results, expected):
    leaves = (jax.tree.leaves(tree) for tree in (results, expected))
    for one, other in zip(*leaves, strict=True):
        np.testing.assert_allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(("n_devices", "accumulate"), [(1, 4), (2, 2)])
def test_parts_of_a_batch_train_like_the_whole(whole, n_devices, accumulate):
    assert_alike(two_steps(n_devices, accumulate), whole)


def counting_rows(n_rows):
    """The loss of some rows, which notes how many it is given."""

    def counted(model, batch, **options):
        n_rows.add(len(batch["inputs"]))
        return batch_loss(model, batch, **options)

    return counted


ON_CPU = "titans_eqx.training.accumulate.TOKENS_AT_ONCE_ON_CPU"


def test_a_cpu_reads_few_tokens_at_once_and_trains_alike(whole, monkeypatch):
    n_rows = set()
    monkeypatch.setattr(ON_CPU, 2 * SEQ_LEN)
    counted = counting_rows(n_rows)
    monkeypatch.setattr("titans_eqx.training.loss.batch_loss", counted)
    assert_alike(two_steps(2, 1), whole)
    assert n_rows == {2}  # of the four of each device


def test_a_cpu_scores_few_tokens_at_once_and_alike(monkeypatch):
    mesh, n_rows = build_mesh(BATCH, data=2), set()
    state, static = first_state(mesh, optax.sgd(0.1))
    batch = jax.device_put(draw_batch(np.random.default_rng(0)), batch_sharding(mesh))
    counted = counting_rows(n_rows)
    whole = build_eval_step(static, mesh, counted)(state, batch)
    assert n_rows == {4}
    monkeypatch.setattr(ON_CPU, SEQ_LEN)
    in_parts = build_eval_step(static, mesh, counted)(state, batch)
    assert n_rows == {4, 1}
    assert_alike(in_parts, whole)


AT_ONCE = {
    "a few short rows": (512, (8, 64), 1, 8),
    "many short rows": (512, (32, 64), 1, 8),
    "rows of which two are enough": (512, (6, 256), 1, 2),
    "a number of rows that nothing divides": (512, (7, 256), 1, 1),
    "long rows": (512, (4, 4096), 1, 1),
    "parts that are small already": (512, (8, 64), 4, 2),
    "parts that are not": (512, (12, 256), 2, 2),
    "no tokens": (512, (16,), 1, 16),
    "as many as there are": (None, (32, 256), 2, 16),
}


@pytest.mark.parametrize(
    ("tokens", "shape", "n_parts", "at_once"), AT_ONCE.values(), ids=AT_ONCE.keys()
)
def test_rows_that_are_read_at_once(tokens, shape, n_parts, at_once):
    seen = set()

    def loss_sum(scale, frozen, inputs):
        (rows,) = inputs[0].values()
        seen.add(rows.shape)
        return jnp.sum(scale * rows), (jnp.asarray(rows.size, jnp.int32), None)

    summed = in_microbatches(loss_sum, n_parts, tokens_at_once=tokens)
    gradient = jax.jit(jax.grad(summed, has_aux=True))
    rows = jnp.arange(float(np.prod(shape))).reshape(shape)
    total, (count, _) = gradient(jnp.ones(()), None, ({"rows": rows}, None))
    assert seen == {(at_once, *shape[1:])}
    assert count == rows.size
    np.testing.assert_allclose(total, jnp.sum(rows))
