import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.small import VOCAB, small_config, small_model
from titans_eqx.training.loss import batch_loss


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
