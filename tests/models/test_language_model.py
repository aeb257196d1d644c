"""What holds for a whole model: causality, streams, gradients that reach everything."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.models.small import VOCAB, small_model, tokens
from tests.models.variants import ALL, MAC, OTHERS, cases, reach
from titans_eqx.models import build_model

call = eqx.filter_jit(lambda model, ids, state: model(ids, state))
step = eqx.filter_jit(lambda model, token, state: model.step(token, state))
# Compiled, for a prefix is read in it.
start_of = eqx.filter_jit(lambda model: model.init_state())


def assert_close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9),
        actual,
        expected,
    )


N_SLOPES = VOCAB  # three segments


@pytest.fixture(scope="module", params=cases(ALL))
def slopes(request):
    """The gradient of the logits at each token (summed with random weights).

    Token j is id j, so that row j of the embedding is read at token j alone. The head
    is not tied, or the embedding would also be read at every logit.
    """
    with jax.enable_x64(True):
        config = ALL[request.param].model_copy(update={"tied_embeddings": False})
        model = small_model(config)
        arrays, static = eqx.partition(model, eqx.is_inexact_array)
        weights = np.random.default_rng(0).normal(size=(N_SLOPES, VOCAB))

        # Called for each token: a batch of gradients would take longer to compile.
        @jax.jit
        @jax.grad
        def slope(arrays, weights):
            logits, _ = eqx.combine(arrays, static)(jnp.arange(N_SLOPES))
            return jnp.sum(weights * logits)

        rows = [slope(arrays, row[:, None] * weights) for row in np.eye(N_SLOPES)]
        return config, jax.tree.map(lambda *row: np.stack(row), *rows)


def test_no_logit_depends_on_a_later_token_and_all_on_the_past(slopes):
    config, by_token = slopes
    influence = np.abs(by_token.embedding).sum(axis=2)
    distance = np.arange(N_SLOPES)[:, None] - np.arange(N_SLOPES)
    furthest = reach(config)
    is_seen = (distance >= 0) & (furthest is None or distance <= furthest)
    np.testing.assert_array_equal(influence > 0, is_seen)


# Parts of a memory through which nothing but its writes depends on a token.
WRITES = tuple(f".heads.projections.{part}" for part in ("key", "value", "gates"))


def test_gradient_reaches_everything_but_the_frozen_memory(slopes):
    """And, of a memory that is switched off, but what would decide its writes."""
    config, by_token = slopes
    untrained = [".heads.initial_weights"] * (config.memory.initial_memory == "frozen")
    untrained += WRITES * config.memory.off
    without, expected = set(), set()
    for path, leaf in jax.tree.leaves_with_path(by_token):
        name, slope = jax.tree_util.keystr(path), leaf.sum(axis=0)
        if slope.size == 0:
            continue
        # Layers of a stack are checked one by one.
        layers = slope if ".stacks" in name else slope[None]
        if not all(np.any(layer) for layer in layers):
            without.add(name)
        if any(part in name for part in untrained):
            expected.add(name)
            assert not np.any(leaf)
    assert without == expected
    assert bool(expected) == (config.has_memory and bool(untrained))


WHOLE = 17
ROWS = {name: ALL[name] for name in ("mac", "mag", "mal", "lmm delta")}
STREAMED = ["mac", "mac mixed, on some layers", *OTHERS]
SINGLE = [*ROWS, "mac mixed, on some layers", "every other layer mac"]


@pytest.fixture(scope="module", params=cases(STREAMED))
def streamed(request):
    """A model, its tokens, and what it makes of all of them at once."""
    with jax.enable_x64(True):
        model, ids = small_model(ALL[request.param]), tokens(WHOLE)
        return model, start_of(model), np.asarray(ids), call(model, ids, None)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.sampled_from([1, 6]), min_size=2, max_size=10))
def test_a_stream_in_any_pieces_gives_the_logits_of_the_whole(x64, streamed, pieces):
    model, state, ids, (whole, _) = streamed
    start = 0
    for piece in pieces:
        if start + piece > WHOLE:
            break
        logits, state = call(model, jnp.asarray(ids[start : start + piece]), state)
        assert_close(logits, whole[start : start + piece])
        start += piece


@pytest.mark.parametrize("streamed", cases(SINGLE), indirect=True)
def test_in_single_precision_pieces_differ_by_rounding_only(streamed):
    model, _, ids, (whole, _) = streamed
    single = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, model
    )
    first, state = call(single, jnp.asarray(ids[:6]), start_of(single))
    second, _ = call(single, jnp.asarray(ids[6:12]), state)
    # Logits are of order one; chunks of a few tokens add up few roundings.
    pieces = np.concatenate([first, second])
    np.testing.assert_allclose(pieces, whole[:12], rtol=0, atol=1e-4)


def test_token_by_token_gives_the_logits_and_the_state_of_the_whole(x64, streamed):
    model, state, ids, (whole, last) = streamed
    rows = []
    for token in ids:
        logits, state = step(model, jnp.asarray(token), state)
        rows.append(logits)
    assert_close(np.stack(rows), whole)
    assert_close(state, last)


def test_unstacked_layers_step_as_the_stack_does(x64, streamed):
    model, _, ids, (_, state) = streamed
    token = jnp.asarray(ids[0])
    unstacked, parts = model.unstack(), model.unstack_state(state)
    n_repeats = [stack.n_repeats for stack in model.backbone.stacks]
    assert len(parts) == len(unstacked.backbone.stacks) == sum(n_repeats)
    logits, parts = step(unstacked, token, parts)
    assert_close((logits, model.stack_state(parts)), step(model, token, state))


@pytest.mark.parametrize("streamed", cases(MAC), indirect=True)
def test_less_than_a_segment_is_the_start_of_the_whole(x64, streamed):
    model, _, ids, (whole, _) = streamed
    logits, _ = call(model, jnp.asarray(ids[:3]), None)
    assert_close(logits, whole[:3])


@pytest.mark.parametrize("config", ROWS.values(), ids=ROWS.keys())
def test_sequences_of_a_batch_do_not_talk(x64, config):
    model = small_model(config)
    ids = jnp.asarray(np.stack([tokens(WHOLE, seed=seed) for seed in range(3)]))
    run = eqx.filter_jit(lambda model, ids: jax.vmap(model)(ids)[0])
    logits = run(model, ids)
    changed = run(model, ids.at[0].set(tokens(WHOLE, seed=9)))
    assert np.any(changed[0] != logits[0])
    np.testing.assert_array_equal(changed[1:], logits[1:])
    alone, _ = call(model, ids[1], None)
    assert_close(logits[1], alone)


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, jnp.bfloat16) for name in ALL), ("mac", jnp.float32)]
)
def test_state_keeps_its_size_and_dtypes_from_the_first_token_on(name, dtype):
    def trace():
        model = jax.tree.map(
            lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x,
            build_model(ALL[name], key=jr.key(0)),
        )
        start = model.init_state()
        logits, after_whole = model(tokens(6))
        more_logits, after_piece = model(tokens(3), start)
        last_logits, after_step = model.step(tokens(1)[0], start)
        all_logits = (logits, more_logits, last_logits)
        return all_logits, (start, after_whole, after_piece, after_step)

    all_logits, (start, *later) = jax.eval_shape(trace)
    assert {x.dtype for x in all_logits} == {jnp.dtype(dtype)}
    for state in later:
        assert shapes(state) == shapes(start)


@pytest.mark.parametrize("name", ["mac", "lmm delta"])
def test_half_precision_parameters_keep_a_wide_memory(name):
    def trace():
        model = jax.tree.map(
            lambda x: x.astype(jnp.bfloat16) if eqx.is_inexact_array(x) else x,
            build_model(ALL[name], key=jr.key(0)),
        )
        return model(tokens(6))[1]

    ((layer,),) = jax.eval_shape(trace)
    memory = layer if name == "lmm delta" else layer.memory
    assert len(memory.heads.weights) == ALL[name].memory.depth
    wide = [memory.heads.weights, memory.heads.velocity]
    if name != "lmm delta":
        wide.append(memory.heads.anchor)
    if name == "mac":
        wide.append(layer.snapshot)
        assert layer.cache.token_keys.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(wide)} == {jnp.dtype("float32")}
