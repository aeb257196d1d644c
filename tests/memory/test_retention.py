"""Elastic net and norm: both forms equal oracles of the chunk and of the papers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from pydantic import ValidationError

from tests.memory.problems import (
    D,
    assert_identical,
    draw_problem,
    largest_difference,
    solve_both,
)
from tests.oracles.retention import (
    elastic_net,
    elastic_net_oracle,
    moneta_oracle,
    norm_retention,
    q_norm,
    retention_oracle,
)
from titans_eqx.config import MemoryConfig, ModelConfig
from titans_eqx.memory import (
    ElasticNet,
    MemoryNet,
    NeuralMemory,
    NormRetention,
    OmegaRule,
    PowerLoss,
    RetentionRule,
    TitansRule,
    check_rule,
)
from titans_eqx.memory.retention_rule import RetentionState
from titans_eqx.memory.titans import TitansState

pytestmark = pytest.mark.usefixtures("x64")
CHUNK = 4
LINEAR = MemoryNet(D, 1, residual=False, norm=False)
DEEP = MemoryNet(D, 2, expansion=2)


def titans(**options):
    return TitansRule(**{"chunk_len": CHUNK, **options})


def retention_answer(rule, retention, net, problem):
    """What the plain NumPy oracle makes of a problem, in the shape of the two forms."""
    inputs, state, initial = jax.tree.map(np.asarray, problem)
    inner, gates, scale = state.inner, inputs.gates, state.scale
    result = retention_oracle(
        [w / s for w, s in zip(inner.weights, scale, strict=True)],
        scale,
        inputs.queries,
        inputs.keys,
        inputs.values,
        gates["decay"],
        gates["momentum"],
        gates["learning_rate"],
        retention=retention,
        chunk_len=rule.chunk_len,
        velocity=[v / s for v, s in zip(inner.velocity, scale, strict=True)],
        anchor=inner.anchor,
        offset=int(state.chunk_offset),
        target=initial if rule.rule.decay_towards == "initial" else None,
        clip=rule.rule.clip or None,
        residual=net.residual,
        norm=net.norm,
        read=rule.rule.read,
    )
    weights, velocity = (
        tuple(s * jnp.asarray(x) for s, x in zip(result.scale, part, strict=True))
        for part in (result.accumulated, result.velocity)
    )
    offset = jnp.asarray(result.offset, jnp.int32)
    inner = TitansState(
        weights, velocity, tuple(map(jnp.asarray, result.anchor)), offset
    )
    return jnp.asarray(result.reads), RetentionState(
        inner, jnp.asarray(result.scale), offset
    )


CASES = {
    "elastic net": (titans(), ElasticNet(0.01), elastic_net(0.01), DEEP),
    "norm": (
        titans(read="before", clip=0.0),
        NormRetention(),
        norm_retention(4),
        LINEAR,
    ),
    "norm 3, towards the start": (
        titans(decay_towards="initial"),
        NormRetention(3.0),
        norm_retention(3),
        DEEP,
    ),
}


@pytest.mark.parametrize(
    ("inner", "retention", "expected", "net"), CASES.values(), ids=CASES.keys()
)
def test_both_forms_equal_the_oracle(inner, retention, expected, net):
    rule = RetentionRule(inner, retention)
    forms = solve_both(rule, net)
    for offset in (0, 1, 3):
        problem = draw_problem(rule, net, 11, chunk_offset=offset)
        answer = retention_answer(rule, expected, net, problem)
        for form in forms:
            assert largest_difference(form(*problem), answer) < 1e-10


def one_by_one(retention, loss=None):
    """The rule of the papers: chunks of one token, no momentum and no clipping."""
    inner = titans(chunk_len=1, loss=loss, use_momentum=False, clip=0.0, read="before")
    rule = RetentionRule(inner, retention)
    inputs, _, initial = draw_problem(rule, LINEAR, 9)
    large = jax.tree.map(lambda w: 4 * w, initial)
    plain = jax.tree.map(np.asarray, inputs)
    tokens = plain.queries, plain.keys, plain.values
    gates = [plain.gates[name][:, 0] for name in ("decay", "learning_rate")]
    answers = [
        form(inputs, rule.init_state(large), initial)
        for form in solve_both(rule, LINEAR)
    ]
    return np.asarray(large[0]), (*tokens, *gates), answers


def test_chunks_of_one_token_are_the_published_elastic_net():
    w, tokens, answers = one_by_one(ElasticNet(0.05))
    expected, last = elastic_net_oracle(w, *tokens, gamma=0.05)
    assert np.any(last == 0)
    assert np.any(last != 0)
    for reads, state in answers:
        np.testing.assert_allclose(reads, expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(state.weights[0], last, rtol=0, atol=1e-10)


def test_chunks_of_one_token_are_the_published_moneta():
    w, tokens, answers = one_by_one(NormRetention(4.0), PowerLoss(3.0))
    expected, accumulated = moneta_oracle(w, *tokens, p=3, q=4)
    norms = [q_norm(a, 4) for a in (w, *accumulated)]
    assert min(norms) > 1  # where ours is the published one
    last = accumulated[-1] / norms[-1] ** 2
    for reads, state in answers:
        np.testing.assert_allclose(reads, expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(state.weights[0], last, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "net"),
    [
        (RetentionRule(titans(chunk_len=3), ElasticNet(0.02)), LINEAR),
        (RetentionRule(OmegaRule(D, window=3, chunk_len=2), NormRetention()), LINEAR),
    ],
    ids=["elastic net", "norm, omega"],
)
def test_the_rule_passes_its_check(rule, net):
    check_rule(rule, net)


@pytest.mark.parametrize("retention", [ElasticNet(0.1), NormRetention()])
def test_a_chunk_without_tokens_changes_nothing(retention):
    rule = RetentionRule(titans(), retention)
    state = draw_problem(rule, LINEAR, 1).state
    carry = rule.end_chunk(state)
    assert_identical(rule.end_chunk(rule.start_chunk(carry)), carry)


@pytest.mark.parametrize("q", [2.5, 3.0, 4.0, 8.0])
def test_a_norm_of_any_size_gives_a_finite_scale_and_gradient(q):
    one = np.random.default_rng(0).normal(size=(3, 5))
    retention = NormRetention(q)

    @jax.value_and_grad
    def scale_and_slope(a):
        return retention(a, jnp.zeros((), jnp.int32))[1]

    for size in (0.0, 1e-30, 0.1, 1.0, 10.0, 1e30):
        scale, slope = scale_and_slope(jnp.asarray(size * one, jnp.float32))
        assert np.all(np.isfinite(slope))
        assert 0 < scale <= 1
        if 0 < size < 1e3:
            _, expected = norm_retention(q)(size * one, 0)
            np.testing.assert_allclose(scale, expected, rtol=1e-5)


D_MODEL = 8
SMALL = {"n_heads": 2, "expansion": 2, "chunk_len": CHUNK}


def test_the_layer_reads_steps_like_the_sequence():
    """After a prefix, which is a chunk of its own, and with a window of pairs."""
    config = MemoryConfig(
        **SMALL, rule="omega", retention="norm", retention_power=3.0, window=2
    )
    memory = NeuralMemory.from_config(D_MODEL, config, key=jr.key(0))
    assert isinstance(memory.heads.rule, RetentionRule)
    assert memory.heads.rule.retention == NormRetention(3.0)
    assert isinstance(memory.heads.rule.rule, OmegaRule)
    x = jr.normal(jr.key(1), (11, D_MODEL))
    call, step = (eqx.filter_jit(f) for f in (NeuralMemory.__call__, NeuralMemory.step))
    start = eqx.filter_jit(NeuralMemory.init_state)(memory, x[:2])
    whole = call(memory, x, start)
    reads, state = [], start
    for token in x:
        y, state = step(memory, token, state)
        reads.append(y)
    assert largest_difference((jnp.stack(reads), state), whole) < 1e-10
    assert_identical(memory.snapshot(state), state.heads.inner.weights)


def test_a_config_names_the_threshold():
    config = MemoryConfig(**SMALL, retention="elastic_net", retention_threshold=0.5)
    ModelConfig(d_model=D_MODEL, memory=config)
    memory = NeuralMemory.from_config(D_MODEL, config, key=jr.key(0))
    assert isinstance(memory.heads.rule, RetentionRule)
    assert memory.heads.rule.retention == ElasticNet(0.5)
    assert isinstance(memory.heads.rule.rule, TitansRule)


REFUSED = {
    "a threshold of nothing": (
        {"retention_threshold": 0.1},
        r'retention_threshold must be left out with .*retention = "decay", got 0.1',
    ),
    "a power of nothing": (
        {"retention": "elastic_net", "retention_power": 3.0},
        r'retention_power must be left out with .* = "elastic_net", got 3.0',
    ),
    "another rule": (
        {"retention": "norm", "rule": "delta", "depth": 1, "norm": False},
        r'rule must be "titans" or "omega" with .*retention = "norm", got "delta"',
    ),
}


@pytest.mark.parametrize(("memory", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_combinations_that_mean_nothing_are_refused(memory, message):
    with pytest.raises(ValidationError, match=message):
        ModelConfig(memory=MemoryConfig(**memory))


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="threshold must not be negative, got"):
        ElasticNet(-1.0)
    with pytest.raises(ValueError, match="power must be above 2, got power=2.0"):
        NormRetention(2.0)
