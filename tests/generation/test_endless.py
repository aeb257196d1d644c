"""A stream may go on forever: same program, same memory, finite numbers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.small import VOCAB, small_config, small_model

N_TOKENS, BLOCK_LEN = 30_000, 2_000
SIZES = {
    "memory": {"chunk_len": 16},
    "attention": {"segment_len": 32, "window": 16},
}
PATTERNS = ("mac", "mag", "mal", "lmm", "transformer")


def streams(n):
    """Random tokens, one token repeated, and two tokens in turns."""
    drawn = np.random.default_rng(0).integers(VOCAB, size=n)
    return np.stack([drawn, np.full(n, 3), np.arange(n) % 2]).astype(np.int32)


def live_bytes():
    return sum(x.nbytes for x in jax.live_arrays())


@pytest.mark.slow
def test_thirty_thousand_tokens_cost_no_more_each_than_the_first():
    model = small_model(small_config(**SIZES))
    n_traces = 0

    @eqx.filter_jit
    def read(model, tokens, state):
        nonlocal n_traces
        n_traces += 1
        logits, state = jax.vmap(model)(tokens, state)
        return logits[:, -1], jnp.all(jnp.isfinite(logits)), state

    state = jax.tree.map(lambda x: jnp.stack([x] * 3), model.init_state())
    held = []
    for block in np.split(streams(N_TOKENS), N_TOKENS // BLOCK_LEN, axis=1):
        last, is_finite, state = read(model, jnp.asarray(block), state)
        assert is_finite
        held.append(live_bytes())
        del last, is_finite
    # One program for every block, so every block costs the same.
    assert n_traces == 1
    assert len(set(held[1:])) == 1
    leaves = [x for x in jax.tree.leaves(state) if eqx.is_inexact_array(x)]
    assert all(np.all(np.isfinite(x)) for x in leaves)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_huge_embeddings_stay_finite(pattern):
    model = small_model(small_config(pattern=pattern, **SIZES))
    model = eqx.tree_at(lambda m: m.embedding, model, replace_fn=lambda e: 1e4 * e)
    logits, state = eqx.filter_jit(jax.vmap(lambda ids: model(ids)))(
        jnp.asarray(streams(4_000))
    )
    assert np.all(np.isfinite(logits))
    leaves = [x for x in jax.tree.leaves(state) if eqx.is_inexact_array(x)]
    assert all(np.all(np.isfinite(x)) for x in leaves)
