from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.models.small import VOCAB, small_config, small_model
from titans_eqx.sharding.mesh import batch_sharding, build_mesh, replicated
from titans_eqx.training.footprint import _inner
from titans_eqx.training.loss import batch_loss
from titans_eqx.training.precision import in_mixed_precision
from titans_eqx.training.state import init_train_state
from titans_eqx.training.step import build_train_step

BATCH, SEQ_LEN = 2, 6


@pytest.fixture(scope="module")
def model():
    return small_model(small_config(pattern="mal", n_layers=1))


@pytest.fixture(scope="module")
def batch():
    tokens = np.random.default_rng(0).integers(VOCAB, size=(BATCH, SEQ_LEN + 1))
    inputs, targets = (
        jnp.asarray(x, jnp.int32) for x in (tokens[:, :-1], tokens[:, 1:])
    )
    return {"inputs": inputs, "targets": targets, "mask": jnp.ones(inputs.shape, bool)}


def product_dtypes(jaxpr):
    """How often a product of which types is written."""
    counts = Counter()
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            counts[tuple(str(var.aval.dtype) for var in eqn.invars)] += 1
        for inner in _inner(eqn):
            counts += product_dtypes(inner)
    return counts


def test_blocks_multiply_in_bfloat16_and_the_memory_in_float32(model, batch):
    features, state = jax.eval_shape(
        lambda tokens: in_mixed_precision(model).features(tokens), batch["inputs"][0]
    )
    assert features.dtype == jnp.bfloat16
    (block,) = state[0]
    assert {x.dtype for x in jax.tree.leaves(block.memory.heads.weights)} == {
        jnp.dtype(jnp.float32)
    }
    assert block.window.keys.dtype == jnp.bfloat16
    jaxpr = jax.make_jaxpr(lambda b: batch_loss(model, b, precision="mixed"))(batch)
    kinds = product_dtypes(jaxpr.jaxpr)
    assert kinds.keys() == {("bfloat16",) * 2, ("float32",) * 2}
    plain = product_dtypes(jax.make_jaxpr(lambda b: batch_loss(model, b))(batch).jaxpr)
    assert plain.keys() == {("float32",) * 2}
    assert kinds.total() == plain.total()
    # Attention, feed-forward, projections and head.
    assert kinds["bfloat16", "bfloat16"] >= 12


def test_what_is_trained_stays_float32_and_is_trained(batch, optax_promotion):
    model = small_model(small_config(pattern="transformer", n_layers=1))
    mesh, optimizer = build_mesh(BATCH, data=1), optax.adam(1e-2)
    state, static = init_train_state(model, optimizer)
    dtypes = jax.tree.map(lambda x: x.dtype, state)
    assert {x.dtype for x in jax.tree.leaves(state.parameters)} == {
        jnp.dtype(jnp.float32)
    }
    # Copied, because a step donates its state.
    state = jax.device_put(jax.tree.map(np.array, state), replicated(mesh))

    def mixed_loss(model, batch):
        scores = batch_loss(model, batch, precision="mixed")
        return jnp.sum(scores.loss), jnp.sum(batch["mask"], dtype=jnp.int32)

    step = build_train_step(optimizer, static, mesh, mixed_loss)
    losses = []
    for _ in range(8):
        state, metrics = step(state, jax.device_put(batch, batch_sharding(mesh)))
        losses.append(float(metrics.loss))
    assert metrics.loss.dtype == jnp.float32
    assert jax.tree.map(lambda x: x.dtype, state) == dtypes
    assert losses[-1] < 0.8 * losses[0]
    logits = jax.jit(jax.vmap(lambda tokens: model(tokens)[0]))(batch["inputs"])
    exact = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])
    # A loss moves by at most twice what a logit does; some ten results on the way from
    # a token to its logits are rounded, each by half an epsilon.
    bound = 2 * 10 / 2 * float(jnp.finfo(jnp.bfloat16).eps * jnp.abs(logits).max())
    assert 0 < abs(losses[0] - float(exact.mean())) < bound
