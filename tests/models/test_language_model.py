"""What holds for a whole model: causality, streams, gradients that reach everything."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.models.small import VOCAB, jittered, tokens
from tests.models.variants import ALL, MAC
from titans_eqx.config import ModelConfig
from titans_eqx.models import TitansLM, build_model

call = eqx.filter_jit(lambda model, ids, state: model(ids, state))
step = eqx.filter_jit(lambda model, token, state: model.step(token, state))


def build(config: ModelConfig) -> TitansLM:
    return jittered(build_model(config, key=jr.key(0)))


def assert_close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9),
        actual,
        expected,
    )


@pytest.mark.parametrize("config", ALL.values(), ids=ALL.keys())
def test_no_logit_depends_on_a_later_token_and_all_on_the_past(x64, config):
    # Token j is id j, so that row j of the embedding is read at token j alone; the
    # head is not tied, or the embedding would also be read at every logit.
    n_tokens = VOCAB
    config = config.model_copy(update={"tied_embeddings": False})
    model, ids = build(config), jnp.arange(n_tokens)

    @jax.jit
    def slopes(embedding):
        def logits(embedding):
            return eqx.tree_at(lambda m: m.embedding, model, embedding)(ids)[0]

        return jax.jacobian(logits)(embedding)

    influence = np.abs(slopes(model.embedding)).sum(axis=(1, 3))
    distance = np.arange(n_tokens)[:, None] - np.arange(n_tokens)
    # Layers of windows see no further than their windows laid end to end.
    has_memory = config.variant != "transformer"
    reach = config.n_layers * (config.attention.window - 1)
    is_seen = (distance >= 0) & (has_memory | (distance <= reach))
    np.testing.assert_array_equal(influence > 0, is_seen)


WHOLE = 17
STREAMED = MAC.keys() - {"mac multiplied"}


@pytest.fixture(scope="module", params=sorted(STREAMED))
def streamed(request):
    """A model, its tokens, and what it makes of all of them at once."""
    with jax.enable_x64(True):
        model, ids = build(MAC[request.param]), tokens(WHOLE)
        return model, np.asarray(ids), call(model, ids, None)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.sampled_from([1, 3, 6]), min_size=3, max_size=6))
def test_a_stream_in_any_pieces_gives_the_logits_of_the_whole(x64, streamed, pieces):
    model, ids, (whole, _) = streamed
    state, start = model.init_state(), 0
    for piece in pieces:
        if start + piece > WHOLE:
            break
        logits, state = call(model, jnp.asarray(ids[start : start + piece]), state)
        assert_close(logits, whole[start : start + piece])
        start += piece


def test_token_by_token_gives_the_logits_and_the_state_of_the_whole(x64, streamed):
    model, ids, (whole, last) = streamed
    state, rows = model.init_state(), []
    for token in ids:
        logits, state = step(model, jnp.asarray(token), state)
        rows.append(logits)
    assert_close(jnp.stack(rows), whole)
    assert_close(state, last)


@pytest.mark.parametrize("n_tokens", [1, 3])
def test_less_than_a_segment_is_the_start_of_the_whole(x64, streamed, n_tokens):
    model, ids, (whole, _) = streamed
    logits, _ = call(model, jnp.asarray(ids[:n_tokens]), None)
    assert_close(logits, whole[:n_tokens])


@pytest.mark.parametrize("config", ALL.values(), ids=ALL.keys())
def test_gradient_reaches_everything_but_the_frozen_memory(config):
    model, ids = build(config), tokens(WHOLE)

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(model):
        return jnp.sum(jax.nn.logsumexp(model(ids)[0], axis=1) ** 2)

    without = set()
    for path, leaf in jax.tree.leaves_with_path(gradient(model)):
        name = jax.tree_util.keystr(path)
        assert np.all(np.isfinite(leaf)), name
        # Layers of a stack are checked one by one.
        layers = leaf if ".stacks" in name else leaf[None]
        if not np.all(np.any(layers, axis=tuple(range(1, layers.ndim)))):
            without.add(name)
    frozen = {
        jax.tree_util.keystr(path)
        for path, _ in jax.tree.leaves_with_path(eqx.filter(model, eqx.is_array))
        if "initial_weights" in jax.tree_util.keystr(path)
        and config.memory.initial_memory == "frozen"
    }
    assert without == frozen


def test_sequences_of_a_batch_do_not_talk():
    model = build(MAC["mac"])
    ids = jnp.stack([tokens(WHOLE, seed=seed) for seed in range(3)])
    run = eqx.filter_jit(lambda ids: jax.vmap(model)(ids)[0])
    logits = run(ids)
    changed = run(ids.at[0].set(tokens(WHOLE, seed=9)))
    assert np.any(changed[0] != logits[0])
    np.testing.assert_array_equal(changed[1:], logits[1:])
    alone, _ = call(model, ids[1], None)
    np.testing.assert_allclose(logits[1], alone, atol=1e-4)


def test_half_precision_parameters_keep_a_wide_memory():
    model = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if eqx.is_inexact_array(x) else x,
        build(MAC["mac"]),
    )
    logits, state = call(model, tokens(WHOLE), None)
    assert logits.dtype == jnp.bfloat16
    after, next_state = step(model, tokens(1)[0], state)
    assert after.dtype == jnp.bfloat16
    assert jax.tree.map(jnp.result_type, next_state) == jax.tree.map(
        jnp.result_type, state
    )
    (layer,) = state[0]
    wide = (layer.memory.memory.weights, layer.memory.memory.momentum)
    assert {x.dtype for x in jax.tree.leaves(wide)} == {jnp.dtype("float32")}


def test_the_state_never_changes_its_size():
    model = build(MAC["mac"])
    shapes = jax.tree.map(jnp.shape, model.init_state())
    _, state = call(model, tokens(WHOLE), None)
    assert jax.tree.map(jnp.shape, state) == shapes
    _, state = step(model, tokens(1)[0], state)
    assert jax.tree.map(jnp.shape, state) == shapes
