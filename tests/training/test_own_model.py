"""A model of the user's own, with a batch and a loss of its own, is trained as ours."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from titans_eqx.models import Backbone
from titans_eqx.models.build import build_backbone
from titans_eqx.sharding.mesh import batch_sharding, build_mesh, replicated
from titans_eqx.training.state import init_train_state
from titans_eqx.training.step import build_train_step

pytestmark = [
    pytest.mark.usefixtures("optax_promotion", "double_precision"),
    pytest.mark.skipif(jax.device_count() < 4, reason="needs 4 devices"),
]

BATCH, SEQ_LEN = 4, 16


class SeriesModel(eqx.Module):
    """A backbone without tokens: the next value of a series of real numbers."""

    backbone: Backbone
    readout: eqx.nn.Linear

    def __init__(self, config, *, key):
        self.backbone = build_backbone(config, key=key)
        self.readout = eqx.nn.Linear(config.d_model, 1, key=key)

    def __call__(self, series):
        features, _ = self.backbone(series)
        return jax.vmap(self.readout)(features)[:, 0]


def squared_error(model, batch):
    errors = jax.vmap(model)(batch["series"]) - batch["next"]
    return jnp.sum(jnp.square(errors)), jnp.asarray(errors.size)


@pytest.mark.slow
def test_another_loss_and_other_arrays_train_another_model(small_config):
    model = SeriesModel(small_config().model, key=jr.key(0))
    series = jr.normal(jr.key(1), (BATCH, SEQ_LEN, 8))
    batch = {"series": series, "next": jnp.cumsum(series[:, :, 0], axis=1)}
    loss, n_values = eqx.filter_jit(squared_error)(model, batch)
    optimizer = optax.adam(1e-2)
    mesh = build_mesh(BATCH, data=4)
    state, static = init_train_state(model, optimizer)
    # Copied, because a step donates its state.
    state = jax.device_put(jax.tree.map(np.array, state), replicated(mesh))
    step = build_train_step(optimizer, static, mesh, loss_fn=squared_error)
    placed = jax.device_put(batch, batch_sharding(mesh))
    losses = []
    for _ in range(5):
        state, metrics = step(state, placed)
        losses.append(float(metrics.loss))
    np.testing.assert_allclose(losses[0], loss / n_values, rtol=1e-9)
    assert losses[-1] < losses[0]
