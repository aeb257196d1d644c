"""Several documents in a row are read as sequences of their own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.small import (
    small_block,
    small_config,
    small_model,
    stream,
    tokens,
)
from tests.models.variants import DELTA
from titans_eqx.memory import AbstractMemory
from titans_eqx.nn.documents import Documents

LENGTHS = (3, 5, 1, 5, 3)
N_DOCUMENTS, N_TOKENS = len(LENGTHS), sum(LENGTHS)
BEGINS = np.cumsum(LENGTHS) - LENGTHS
IS_OWN = np.arange(N_DOCUMENTS)[:, None] == np.repeat(np.arange(N_DOCUMENTS), LENGTHS)
# A row that begins with each document; nothing depends on what follows it.
SHIFTED = (np.arange(N_TOKENS) + BEGINS[:, None]) % N_TOKENS

LEARNED = {"depth": 1, "initial_memory": "learned", "truncate_every": 1}
# Chunks of six tokens that are taken in two by two.
LARGE = {"rule": "large_chunk", "chunk_len": 6, "depth": 1, "decay": "none"}
TNT = {**LARGE, "local": {"chunk_lens": [2], "shard_len": 4, "depth": 1}}
IN_MEMORY = {"persistent_in_memory": True, "n_persistent": 3}
CONVOLVED = {"kernel_size": 3}
# In two calls, of which the first ends inside the fourth document; or in one.
IN_TWO = {
    "mac": small_config(memory=LEARNED),
    "mag": small_config(pattern="mag", memory=LEARNED, attention=IN_MEMORY | CONVOLVED),
    "full attention": small_config(pattern="transformer", attention={"window": 20}),
}
IN_ONE = {
    "lmm omega, retained": small_config(
        pattern="lmm",
        memory={"rule": "omega", "window": 3, "retention": "norm", "depth": 1},
    ),
    "lmm memora": small_config(
        pattern="lmm", memory={"rule": "memora", "use_momentum": False, "depth": 1}
    ),
    "lmm off": small_config(pattern="lmm", memory={"off": True, "depth": 1}),
    "mac TNT": small_config(memory=TNT),
    "mal TNT": small_config(pattern="mal", memory=TNT),
    "mal delta": small_config(pattern="mal", memory=DELTA),
    "transformer": small_config(pattern="transformer", attention=CONVOLVED),
}


DIFFERENTIATED = {
    "lmm": small_config(pattern="lmm", memory={**LEARNED, "target": "next"}),
    "mac": IN_TWO["mac"],
}


def in_a_row(mixer, x, n_first):
    """All documents, read in parts; the first of them ends after `n_first` tokens."""
    parts, state = [], None
    for begin, end in ((0, n_first), (n_first, N_TOKENS)):
        if begin < end:
            starts = [b - begin for b in BEGINS.tolist() if begin < b < end]
            # One place more than is needed.
            documents = Documents(jnp.array([*starts, end - begin]), end - begin)
            y, state = mixer(x[begin:end], state, documents)
            parts.append(y)
    return jnp.concatenate(parts)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("config", "n_first"),
    [(one, 11) for one in IN_TWO.values()]
    + [(one, N_TOKENS) for one in IN_ONE.values()],
    ids=[*IN_TWO, *IN_ONE],
)
def test_documents_in_a_row_equal_sequences_of_their_own(x64, config, n_first):
    mixer = small_block(config).mixer
    read = eqx.filter_jit(lambda mixer, x: in_a_row(mixer, x, n_first))
    alone = eqx.filter_jit(lambda mixer, x: jax.vmap(lambda x: mixer(x, None)[0])(x))
    x, other = stream(N_TOKENS), stream(N_TOKENS, seed=1)
    y, expected = read(mixer, x), alone(mixer, x[SHIFTED])
    for own, n_own, row in zip(IS_OWN, LENGTHS, expected, strict=True):
        assert_close(y[own], row[:n_own])
        changed = read(mixer, jnp.where(own[:, None], x, other))
        np.testing.assert_array_equal(changed[own], y[own])
        assert np.all(np.any(changed[~own] != y[~own], axis=1))


@pytest.mark.parametrize("name", ["lmm", pytest.param("mac", marks=pytest.mark.slow)])
def test_gradients_are_those_of_sequences_of_their_own(x64, name):
    """Of the parameters and of the tokens, through the outputs of each document."""
    mixer = small_block(DIFFERENTIATED[name]).mixer
    arrays, static = eqx.partition(mixer, eqx.is_inexact_array)
    x, weights = stream(N_TOKENS), stream(N_TOKENS, seed=1)

    @jax.jit
    def row_slopes(arrays, x, weights):
        def loss(arrays, x):
            return jnp.sum(weights * in_a_row(eqx.combine(arrays, static), x, N_TOKENS))

        return jax.grad(loss, (0, 1))(arrays, x)

    @jax.jit
    def slopes_alone(arrays, x, weights):
        def loss(arrays, x):
            return jnp.sum(weights * eqx.combine(arrays, static)(x, None)[0])

        return jax.grad(loss, (0, 1))(arrays, x)

    for own, n_own, shifted in zip(IS_OWN, LENGTHS, SHIFTED, strict=True):
        own_weights = jnp.where(own[:, None], weights, 0.0)
        slopes, by_x = row_slopes(arrays, x, own_weights)
        expected, by_row = slopes_alone(arrays, x[shifted], own_weights[shifted])
        jax.tree.map(assert_close, slopes, expected)
        assert_close(by_x[own], by_row[:n_own])
        assert not np.any(by_x[~own])


def test_the_faster_forms_of_memories_equal_the_one_token_by_token(x64):
    memory = small_block(IN_ONE["mal TNT"]).mixer.memory
    documents = Documents(jnp.asarray(BEGINS[1:]), N_TOKENS)

    @eqx.filter_jit
    def both(memory, x):
        fresh = memory.init_state()
        by_token = AbstractMemory.read_documents(memory, x, documents, fresh)
        return memory.read_documents(x, documents, fresh), by_token

    (y, state), (expected, after) = both(memory, stream(N_TOKENS))
    assert_close(y, expected)
    jax.tree.map(assert_close, state, after)


def test_restarted_steps_equal_a_row_of_documents(x64):
    """In a batch, each row with its documents; the first goes on with the state."""
    model = small_model(small_config(pattern="mal", n_layers=1, memory=DELTA))
    ids = jnp.stack([tokens(9), tokens(9, seed=1)])
    starts = jnp.array([[2, 5], [0, 9]])

    @eqx.filter_jit
    def by_row(model, before, ids, starts):
        def read(before, ids, starts):
            _, state = model(before)
            return model(ids, state, document_starts=starts)[0]

        return jax.vmap(read)(before, ids, starts)

    @eqx.filter_jit
    def by_step(model, before, ids, is_start):
        def step(state, xs):
            token, is_start = xs
            y, state = model.step(token, model.restart(state, is_start))
            return state, y

        def read(before, *xs):
            return jax.lax.scan(step, model(before)[1], xs)[1]

        return jax.vmap(read)(before, ids, is_start)

    is_start = np.zeros((2, 9), bool)
    is_start[0, [2, 5]] = is_start[1, 0] = True
    before = jnp.stack([tokens(3, seed=2), tokens(3, seed=3)])
    logits = by_row(model, before, ids, starts)
    assert_close(logits, by_step(model, before, ids, jnp.asarray(is_start)))
