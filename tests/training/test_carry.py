import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.models.small import VOCAB, small_config, small_model
from titans_eqx.sharding.mesh import batch_sharding, build_mesh
from titans_eqx.training.carry import init_carry, stream_loss
from titans_eqx.training.loss import language_model_loss
from titans_eqx.training.state import init_train_state
from titans_eqx.training.step import build_train_step

pytestmark = pytest.mark.usefixtures("optax_promotion", "double_precision")

BATCH, SEQ_LEN = 4, 5
TOLERANCE = 1e-10  # float64; the same sums in another order


def windows(n_windows, *, batch_size=BATCH):
    """Consecutive windows of random rows, and the rows as one window."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(VOCAB, size=(batch_size, n_windows * SEQ_LEN + 1))
    tokens = tokens.astype(np.int32)
    mask = rng.random((batch_size, n_windows * SEQ_LEN)) < 0.8
    joint = {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "mask": mask}
    parts = []
    for n in range(n_windows):
        part = {k: x[:, n * SEQ_LEN : (n + 1) * SEQ_LEN] for k, x in joint.items()}
        parts.append({**part, "reset": np.full(batch_size, n == 0)})
    return jax.tree.map(jnp.asarray, (parts, joint))


@pytest.fixture(scope="module")
def model(double_precision):
    memory = {"depth": 1, "kernel_size": 2, "n_heads": 1}
    return small_model(small_config(pattern="lmm", n_layers=1, memory=memory))


@pytest.fixture(scope="module")
def read(model):
    return jax.jit(lambda batch, carry: stream_loss(model, batch, carry))


def test_windows_with_carry_lose_as_much_as_the_joint_window(model, read):
    (first, second), joint = windows(2)
    loss, n_scored, carry = read(first, init_carry(model, BATCH))
    more, n_more, _ = read(second, carry)
    expected, n_expected = jax.jit(lambda b: language_model_loss(model, b))(joint)
    assert n_scored + n_more == n_expected
    np.testing.assert_allclose(loss + more, expected, rtol=TOLERANCE)


def test_a_row_that_is_reset_forgets_what_it_carried(model, read):
    (first, second), _ = windows(2)
    fresh = init_carry(model, BATCH)
    _, _, carry = read(first, fresh)
    starts_all = second | {"reset": jnp.ones(BATCH, bool)}
    mixed = jnp.asarray([True, False, True, False])
    _, _, after = read(second | {"reset": mixed}, carry)
    _, _, after_reset = read(starts_all, fresh)
    _, _, after_carry = read(second, carry)
    for one, reset, carried in zip(
        *map(jax.tree.leaves, (after, after_reset, after_carry)), strict=True
    ):
        np.testing.assert_array_equal(one[mixed], reset[mixed])
        np.testing.assert_array_equal(one[~mixed], carried[~mixed])
    memories = (jax.tree.leaves(x[0])[0] for x in (after_carry, after_reset))
    assert np.all(np.not_equal(*memories))


def test_no_gradient_flows_back_through_what_is_carried(model):
    (first, _), _ = windows(2)

    @jax.jit
    def gradient(embedding):
        def carried(embedding):
            changed = eqx.tree_at(lambda m: m.embedding, model, embedding)
            _, _, carry = stream_loss(changed, first, init_carry(changed, BATCH))
            reals = [x for x in jax.tree.leaves(carry) if x.dtype == jnp.float64]
            return sum(jnp.sum(x**2) for x in reals)

        return jax.value_and_grad(carried)(embedding)

    value, slope = gradient(model.embedding)
    assert value > 0
    np.testing.assert_array_equal(slope, 0)


def three_steps(n_devices, accumulate):
    """State after steps of which the last starts the streams anew."""
    mesh, optimizer = build_mesh(BATCH, data=n_devices), optax.sgd(0.1)
    model = small_model(small_config(pattern="transformer", n_layers=1))
    state, static = init_train_state(model, optimizer, carry=init_carry(model, BATCH))
    state = jax.device_put(jax.tree.map(np.array, state), state.shardings(mesh))
    step = build_train_step(optimizer, static, mesh, stream_loss, accumulate=accumulate)
    for batch in (*windows(2)[0], windows(1)[0][0]):
        state, _ = step(state, jax.device_put(batch, batch_sharding(mesh)))
    return jax.device_get(state)


@pytest.mark.slow
def test_parts_and_devices_carry_the_rows_of_their_own():
    alone, spread = three_steps(1, 1), three_steps(2, 2)
    assert jax.tree.leaves(spread.carry)[0].shape[0] == BATCH
    for one, other in zip(*map(jax.tree.leaves, (spread, alone)), strict=True):
        np.testing.assert_allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)
