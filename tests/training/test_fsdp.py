"""Training with parameters split over devices."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from titans_eqx.config import (
    AttentionConfig,
    DataConfig,
    MemoryConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
)
from titans_eqx.models import build_model
from titans_eqx.nn.tree import n_bytes
from titans_eqx.sharding.mesh import batch_sharding, build_mesh
from titans_eqx.sharding.parameters import shardings
from titans_eqx.training.footprint import footprint
from titans_eqx.training.state import init_train_state
from titans_eqx.training.step import build_eval_step, build_train_step

pytestmark = [
    pytest.mark.usefixtures("optax_promotion", "double_precision"),
    pytest.mark.skipif(jax.device_count() != 4, reason="needs 4 devices"),
]

BATCH, SEQ_LEN, VOCAB = 4, 8, 40
TOLERANCE = 1e-9  # float64; the order of sums differs between meshes


def model_config(pattern, n_layers=2, **memory):
    return ModelConfig(
        pattern=pattern,
        d_model=32,
        n_layers=n_layers,
        vocab_size=VOCAB,
        tied_embeddings=False,
        memory=MemoryConfig(
            rule="delta", n_heads=2, depth=1, norm=False, chunk_len=4, **memory
        ),
        attention=AttentionConfig(n_heads=2, segment_len=4, window=4, n_persistent=2),
    )


class Run:
    """Three steps on one mesh, from the same start and with the same batches."""

    def __init__(self, config, data, fsdp):
        mesh = build_mesh(BATCH, data=data, fsdp=fsdp)
        optimizer = optax.adamw(1e-2)
        state, self.static = init_train_state(
            build_model(config, key=jr.key(1)), optimizer
        )
        state = jax.tree.map(jnp.array, state)  # a step donates it
        state = jax.device_put(state, shardings(state, mesh))
        step = build_train_step(optimizer, self.static, mesh)
        self.losses = []
        for seed in range(3):
            tokens = jr.randint(jr.key(seed), (BATCH, SEQ_LEN + 1), 0, VOCAB)
            batch = {
                "inputs": tokens[:, :-1],
                "targets": tokens[:, 1:],
                "mask": jnp.ones((BATCH, SEQ_LEN), bool),
            }
            batch = jax.device_put(batch, batch_sharding(mesh))
            state, metrics = step(state, batch)
            self.losses.append(np.asarray([metrics.loss, metrics.gradient_norm]))
        self.state = state
        self.eval_sums = jax.device_get(
            build_eval_step(self.static, mesh)(state, batch)
        )


def device_share(tree):
    """Bytes on the first device over those of the whole arrays."""
    held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))
    return held / n_bytes(tree)


@pytest.mark.parametrize(
    ("config", "data", "fsdp"),
    [
        pytest.param(
            *(model_config("lmm", initial_memory="learned"), 2, 2),
            marks=pytest.mark.slow,
        ),
        (model_config("transformer", n_layers=1), 1, 4),
    ],
    ids=["a block repeated on 2 x 2", "one block on 1 x 4"],
)
def test_split_parameters_train_as_whole_ones(config, data, fsdp):
    expected, run = Run(config, 1, 1), Run(config, data, fsdp)
    np.testing.assert_allclose(run.losses, expected.losses, rtol=TOLERANCE)
    pairs = zip(
        jax.tree.leaves((run.state, run.eval_sums)),
        jax.tree.leaves((expected.state, expected.eval_sums)),
        strict=True,
    )
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)
    # Small arrays are whole everywhere.
    for part in (run.state.parameters, run.state.optimizer):
        assert 1 / fsdp < device_share(part) < 1.2 / fsdp


def test_split_parameters_train_on_parts_of_a_batch(monkeypatch):
    config = model_config("transformer", n_layers=1)
    expected = Run(config, 1, 1)
    monkeypatch.setattr("titans_eqx.training.accumulate.TOKENS_AT_ONCE_ON_CPU", SEQ_LEN)
    run = Run(config, 1, 2)  # two rows of each device, one after the other
    np.testing.assert_allclose(run.losses, expected.losses, rtol=TOLERANCE)


def test_whole_weights_of_one_layer_at_a_time_are_kept():
    def bytes_of_a_step(n_layers, fsdp):
        config = RunConfig(
            model=model_config("transformer", n_layers),
            # With few tokens, weights and gradients are nearly all there is.
            data=DataConfig(source="task", seq_len=1),
            train=TrainConfig(batch_size=4),
        )
        mesh = build_mesh(4, data=1, fsdp=fsdp)
        optimizer = optax.sgd(1.0)
        state, static = eqx.filter_eval_shape(
            lambda: init_train_state(
                build_model(config.model, key=jr.key(1)), optimizer
            )
        )
        step = build_train_step(optimizer, static, mesh)
        return footprint(step, state, config, mesh).step

    def bytes_of_a_layer(fsdp):
        # Both deep enough for a scan over the layers.
        return (bytes_of_a_step(12, fsdp) - bytes_of_a_step(6, fsdp)) / 6

    assert bytes_of_a_layer(4) < 0.5 * bytes_of_a_layer(1)
