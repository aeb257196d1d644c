from collections import Counter

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.models.small import VOCAB, small_config, small_model
from titans_eqx.models import build_model
from titans_eqx.training.footprint import _inner
from titans_eqx.training.loss import batch_loss
from titans_eqx.training.precision import in_mixed_precision

BATCH, SEQ_LEN = 2, 6


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
        if eqn.primitive.name in ("dot_general", "rows_product"):
            counts[tuple(str(var.aval.dtype) for var in eqn.invars)] += 1
        for inner in _inner(eqn):
            counts += product_dtypes(inner)
    return counts


def test_blocks_multiply_in_bfloat16_and_the_memory_in_float32(batch):
    def build():
        config = small_config(pattern="mal", n_layers=1)
        return build_model(config, key=jr.key(0))

    def read(tokens):
        return in_mixed_precision(build()).features(tokens)

    features, ((block,),) = jax.eval_shape(read, batch["inputs"][0])
    assert features.dtype == block.window.keys.dtype == jnp.bfloat16
    weights = jax.tree.leaves(block.memory.heads.weights)
    assert {x.dtype for x in weights} == {jnp.dtype(jnp.float32)}

    mixed, plain = (
        product_dtypes(
            jax.make_jaxpr(lambda b, p=p: batch_loss(build(), b, precision=p))(
                batch
            ).jaxpr
        )
        for p in ("mixed", "float32")
    )
    assert plain.keys() == {("float32",) * 2}
    assert mixed.keys() == {("bfloat16",) * 2, ("float32",) * 2}
    assert mixed.total() == plain.total()
    # Attention, feed-forward, projections and head.
    assert mixed["bfloat16", "bfloat16"] >= 12


def test_gradients_are_float32_and_lower_a_loss_near_the_exact_one(batch):
    model = small_model(small_config(pattern="transformer", n_layers=1))

    @eqx.filter_jit
    def loss(model, precision):
        return jnp.mean(batch_loss(model, batch, precision=precision).loss)

    gradient = eqx.filter_value_and_grad(loss)
    first, slope = gradient(model, "mixed")
    leaves = jax.tree.leaves((first, slope))
    assert {x.dtype for x in leaves} == {jnp.dtype(jnp.float32)}

    changed = model
    for _ in range(5):
        last, slope = gradient(changed, "mixed")
        changed = eqx.apply_updates(changed, jax.tree.map(lambda x: -0.1 * x, slope))
    assert last < 0.9 * first

    logits = eqx.filter_jit(jax.vmap(lambda x: model(x)[0]))(batch["inputs"])
    # A loss moves by at most twice what a logit does; some ten results on the way from
    # a token to its logits are rounded, each by half an epsilon.
    bound = 2 * 10 / 2 * jnp.finfo(jnp.bfloat16).eps * jnp.abs(logits).max()
    assert 0 < abs(first - loss(model, "float32")) < bound
