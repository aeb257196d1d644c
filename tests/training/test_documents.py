"""A run on rows of documents, from the config to the loss of a step."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from titans_eqx.data import open_dataset
from titans_eqx.sharding.mesh import batch_sharding
from titans_eqx.training import TrainContext
from titans_eqx.training.context import run_mesh
from titans_eqx.training.footprint import batch_shapes
from titans_eqx.training.loss import language_model_loss

pytestmark = [
    pytest.mark.usefixtures("optax_promotion", "double_precision"),
    pytest.mark.skipif(jax.device_count() < 4, reason="needs 4 devices"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    for i in range(40):
        (folder / f"{i}.txt").write_text(f"document {i} " * (i % 4) + f"of {i}")
    return folder


def sequences_of_their_own(batch):
    """The documents of a batch, filled up to the length of a row."""
    length = batch["inputs"].shape[1]
    for row, starts in enumerate(batch["document_starts"]):
        bounds = [0, *starts[starts < length], length]
        for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
            yield {
                name: np.pad(batch[name][row, begin:end], (0, length - end + begin))
                for name in ("inputs", "targets", "mask")
            }


@pytest.mark.parametrize("carry_state", [False, True])
def test_batches_have_the_shapes_that_are_planned_with(
    small_config, folder, carry_state
):
    config = small_config(
        data__path=str(folder),
        data__packing="documents",
        data__max_documents=4,
        train__carry_state=carry_state,
    )
    batch = open_dataset(config).batches[0]
    planned = batch_shapes(config, run_mesh(config))
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {
        name: (x.shape, x.dtype) for name, x in planned.items()
    }


@pytest.mark.slow
def test_a_step_scores_documents_as_sequences_of_their_own(small_config, folder):
    """On four devices: its loss, and the norm of its gradient."""
    config = small_config(
        model__pattern="lmm",
        model__memory={
            **{"rule": "delta", "depth": 1, "norm": False},
            **{"n_heads": 2, "chunk_len": 4},
        },
        data__path=str(folder),
        data__packing="documents",
        data__max_documents=4,
        mesh__data=4,
    )
    context = TrainContext.build(config)
    batch = context.data.batches[0]
    assert np.any(batch["document_starts"] < 16)
    state = context.first_state().result()
    start = state.parameters, state.frozen
    parameters, frozen = jax.tree.map(jnp.asarray, jax.device_get(start))
    placed = jax.device_put(batch, batch_sharding(context.mesh))
    _, metrics = context.train_step(state, placed)

    alone = jax.tree.map(
        lambda *xs: jnp.asarray(np.stack(xs)), *sequences_of_their_own(batch)
    )
    assert len(alone["mask"]) > len(batch["mask"])

    @jax.jit
    @jax.value_and_grad
    def mean_loss(parameters):
        model = eqx.combine(parameters, frozen, context.static)
        total, n_scored = language_model_loss(model, alone)
        return total / n_scored

    loss, gradient = mean_loss(parameters)
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-12)
    norm = optax.tree.norm(gradient)
    np.testing.assert_allclose(metrics.gradient_norm, norm, rtol=1e-9)
