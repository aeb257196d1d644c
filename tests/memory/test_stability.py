"""No finite stream can break the memory: clipping bounds what each token writes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from titans_eqx.memory import (
    MemoryInputs,
    MemoryNet,
    MemoryState,
    UpdateRule,
    scan_chunks,
    scan_tokens,
)
from titans_eqx.nn import unit_norm

D, DEPTH, N_TOKENS, CHUNK = 4, 2, 4096, 64
CLIP, STEP, MOMENTUM = 1.0, 0.1, 0.9
NETS = {
    "norm": MemoryNet(D, DEPTH, expansion=2),
    "no norm": MemoryNet(D, DEPTH, expansion=2, norm=False),
}
ROW = np.array([1.0, -2.0, 3.0, 0.5], np.float32)
SIGNS = np.where(np.arange(N_TOKENS)[:, None] % 2 == 0, 1.0, -1.0).astype(np.float32)
VALUES = {
    "one token, repeated": np.tile(1e4 * ROW, (N_TOKENS, 1)),
    "signs in turn": 1e4 * ROW * SIGNS,
    "random, large": 1e4 * np.random.default_rng(0).normal(size=(N_TOKENS, D)),
    "beyond the square root of the largest float": 1e30 * ROW * SIGNS,
}
FORMS = {"chunks": scan_chunks, "tokens": scan_tokens}


@eqx.filter_jit
def run(form, net, values, decay):
    """The norms of M and S after every chunk of 64 tokens."""
    inputs = MemoryInputs(
        # The directions of the values: whatever repeats there repeats here. They are
        # zero for the largest values, whose squares overflow.
        queries=unit_norm(values / 1e4),
        keys=unit_norm(values / 1e4),
        values=values,
        decay=jnp.full((N_TOKENS, DEPTH), decay),
        momentum=jnp.full((N_TOKENS, DEPTH), MOMENTUM),
        step=jnp.full((N_TOKENS, DEPTH), STEP),
    )
    start = MemoryState.initial(net.init(jr.key(0)))

    def body(state, piece):
        reads, state = form(
            net, piece, state, chunk_len=CHUNK, rule=UpdateRule(clip=CLIP)
        )
        return state, (reads, _norm(state.weights), _norm(state.momentum))

    pieces = jax.tree.map(lambda x: x.reshape(-1, CHUNK, x.shape[1]), inputs)
    _, history = jax.lax.scan(body, start, pieces)
    return history, _norm(start.weights)


def _norm(weights):
    return jnp.sqrt(sum(jnp.sum(jnp.square(w)) for w in weights))


@pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_growth_is_at_most_linear(form, values, net):
    """One token adds at most theta c to S, and S at most theta c / (1 - eta) to M."""
    (reads, weights, momentum), start = run(
        form, net, jnp.asarray(values, jnp.float32), jnp.float32(0)
    )
    assert np.all(np.isfinite(reads))
    largest_momentum = STEP * CLIP / (1 - MOMENTUM)
    rounding = 1.001
    assert np.all(momentum <= rounding * largest_momentum)
    n_read = CHUNK * np.arange(1, N_TOKENS // CHUNK + 1)
    assert np.all(weights <= rounding * (start + largest_momentum * n_read))


def test_forgetting_keeps_the_memory_within_one_bound_for_ever():
    decay = 0.01
    (reads, weights, _), start = run(
        scan_chunks,
        NETS["norm"],
        jnp.asarray(VALUES["one token, repeated"], jnp.float32),
        jnp.float32(decay),
    )
    assert np.all(np.isfinite(reads))
    bound = start + STEP * CLIP / (1 - MOMENTUM) / decay
    assert np.all(weights <= 1.001 * bound)
