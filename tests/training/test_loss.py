import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.small import VOCAB, small_config, small_model
from titans_eqx.training.loss import batch_loss, score_tokens


@pytest.mark.usefixtures("x64")
def test_blocks_of_tokens_lose_as_much_as_all_at_once():
    model = small_model(small_config(pattern="transformer", n_layers=1))
    rng = np.random.default_rng(0)
    shape = (3, 6)
    inputs, targets = (
        jnp.asarray(rng.integers(VOCAB, size=shape), jnp.int32) for _ in range(2)
    )
    batch = {"inputs": inputs, "targets": targets}
    batch["mask"] = jnp.asarray(rng.random(shape) < 0.7)
    weights = rng.normal(size=shape)

    @eqx.filter_jit
    def scores(model, block_len):
        scores = batch_loss(model, batch, block_len=block_len)
        return jnp.sum(scores.loss * weights), scores

    whole, blocks = (
        eqx.filter_value_and_grad(scores, has_aux=True)(model, block_len)
        for block_len in (0, 7)  # all, and a number that does not divide them
    )
    for one, other in zip(*map(jax.tree.leaves, (blocks, whole)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_blocks_without_a_scored_token_have_no_logits():
    model = small_model(small_config(pattern="transformer", n_layers=1))
    rows = jnp.arange(12).reshape(2, 6) % VOCAB
    mask = jnp.zeros((2, 6), bool).at[0, 4].set(True).at[1, 1:4].set(True)
    batch = {"targets": rows, "mask": mask}
    features = jnp.ones((2, 6, model.embedding.shape[1]))
    # What is not read in blocks of four leaves no trace, not even in the gradient.
    features = jnp.where(mask[..., None], features, jnp.nan)

    def loss(model):
        return jnp.sum(score_tokens(model, features, batch, block_len=4).loss)

    gradient = eqx.filter_jit(eqx.filter_grad(loss))(model)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
