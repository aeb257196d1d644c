import jax
import numpy as np
import optax
import pytest

from tests.models.small import VOCAB, small_config, small_model
from titans_eqx.sharding.mesh import batch_sharding, build_mesh, replicated
from titans_eqx.training.state import init_train_state
from titans_eqx.training.step import build_train_step

pytestmark = pytest.mark.usefixtures("optax_promotion", "double_precision")

BATCH, SEQ_LEN = 8, 6
TOLERANCE = 1e-10  # float64; sums in another order


def two_steps(n_devices, accumulate):
    """State and metrics after steps whose tokens are not scored evenly."""
    mesh = build_mesh(BATCH, data=n_devices)
    optimizer = optax.sgd(0.1)
    config = small_config(pattern="transformer", n_layers=1)
    state, static = init_train_state(small_model(config), optimizer)
    state = jax.device_put(jax.tree.map(np.array, state), replicated(mesh))
    step = build_train_step(optimizer, static, mesh, accumulate=accumulate)
    rng = np.random.default_rng(0)
    for _ in range(2):
        tokens = rng.integers(VOCAB, size=(BATCH, SEQ_LEN + 1), dtype=np.int32)
        mask = rng.random((BATCH, SEQ_LEN)) < np.linspace(0, 1, BATCH)[:, None]
        batch = {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "mask": mask}
        state, metrics = step(state, jax.device_put(batch, batch_sharding(mesh)))
    return jax.device_get((state, metrics))


@pytest.fixture(scope="module")
def whole(optax_promotion, double_precision):
    return two_steps(1, 1)


@pytest.mark.parametrize(("n_devices", "accumulate"), [(1, 4), (2, 2)])
def test_parts_of_a_batch_train_like_the_whole(whole, n_devices, accumulate):
    for one, other in zip(
        jax.tree.leaves(two_steps(n_devices, accumulate)),
        jax.tree.leaves(whole),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)
