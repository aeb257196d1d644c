"""No finite stream can break the memory: clipping bounds what each token writes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from titans_eqx.config import MemoryConfig
from titans_eqx.memory import (
    DeltaRule,
    ElasticNet,
    MemoraRule,
    MemoryInputs,
    MemoryNet,
    NeuralMemory,
    NormRetention,
    RetentionRule,
    TitansRule,
    scan_chunks,
    scan_tokens,
)
from titans_eqx.nn import unit_norm

D, N_TOKENS, CHUNK = 4, 4096, 64
CLIP, RATE, MOMENTUM = 1.0, 0.1, 0.9
NETS = {
    "norm": MemoryNet(D, 2, expansion=2),
    "no norm": MemoryNet(D, 2, expansion=2, norm=False),
    "linear, norm": MemoryNet(D, 1),
}
ROW = np.array([1.0, -2.0, 3.0, 0.5], np.float32)
SIGNS = np.where(np.arange(N_TOKENS)[:, None] % 2 == 0, 1.0, -1.0).astype(np.float32)
VALUES = {
    "one token, repeated": np.tile(1e4 * ROW, (N_TOKENS, 1)),
    "signs in turn": 1e4 * ROW * SIGNS,
    "random, large": 1e4 * np.random.default_rng(0).normal(size=(N_TOKENS, D)),
    "beyond the square root of the largest float": 1e30 * ROW * SIGNS,
    "near the largest float": 1e38 * ROW * SIGNS,
}
FORMS = {"chunks": scan_chunks, "tokens": scan_tokens}


def directions(values):
    """Unit keys: whatever repeats in the values repeats there."""
    return unit_norm(values / jnp.max(jnp.abs(values)))


@eqx.filter_jit
def run(form, net, values, decay):
    """The norms of M and S after every chunk of 64 tokens."""
    inputs = MemoryInputs(
        queries=directions(values),
        keys=directions(values),
        values=values,
        gates={
            "decay": jnp.full((N_TOKENS, net.depth), decay),
            "momentum": jnp.full((N_TOKENS, net.depth), MOMENTUM),
            "learning_rate": jnp.full((N_TOKENS, net.depth), RATE),
        },
    )
    rule = TitansRule(chunk_len=CHUNK, clip=CLIP)
    start = rule.init_state(net.init(jr.key(0)))

    def body(state, chunk):
        reads, state = form(rule, net, chunk, state)
        return state, (reads, _norm(state.weights), _norm(state.velocity))

    chunks = jax.tree.map(lambda x: x.reshape(-1, CHUNK, x.shape[1]), inputs)
    _, history = jax.lax.scan(body, start, chunks)
    return history, _norm(start.weights)


def _norm(weights):
    return jnp.sqrt(sum(jnp.sum(jnp.square(w)) for w in weights))


@pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_growth_is_at_most_linear(form, values, net):
    """One token adds at most theta c to S, and S at most theta c / (1 - eta) to M."""
    (reads, weights, velocity), start = run(
        form, net, jnp.asarray(values, jnp.float32), jnp.float32(0)
    )
    assert np.all(np.isfinite(reads))
    largest_velocity = RATE * CLIP / (1 - MOMENTUM)
    rounding = 1.001
    assert np.all(velocity <= rounding * largest_velocity)
    n_read = CHUNK * np.arange(1, N_TOKENS // CHUNK + 1)
    assert np.all(weights <= rounding * (start + largest_velocity * n_read))


def test_forgetting_keeps_the_memory_within_one_bound_for_ever():
    decay = 0.01
    (reads, weights, _), start = run(
        scan_chunks,
        NETS["norm"],
        jnp.asarray(VALUES["one token, repeated"], jnp.float32),
        jnp.float32(decay),
    )
    assert np.all(np.isfinite(reads))
    bound = start + RATE * CLIP / (1 - MOMENTUM) / decay
    assert np.all(weights <= 1.001 * bound)


RETAINING = {
    "elastic net": RetentionRule(TitansRule(chunk_len=CHUNK), ElasticNet()),
    "norm": RetentionRule(TitansRule(chunk_len=CHUNK), NormRetention()),
    "memora": MemoraRule(chunk_len=CHUNK),
}


@eqx.filter_jit
def run_each(form, rule, net, streams):
    """Reads and weights after every chunk, of several streams that never forget."""
    gates = {
        name: jnp.full((N_TOKENS, spec.size), gate, jnp.float32)
        for name, spec in rule.gate_specs(net).items()
        for gate in [{"decay": 0.0, "momentum": MOMENTUM}.get(name, RATE)]
    }

    def body(state, chunk):
        reads, state = form(rule, net, chunk, state)
        return state, (reads, state.weights)

    def one_stream(values):
        inputs = MemoryInputs(directions(values), directions(values), values, gates)
        chunks = jax.tree.map(lambda x: x.reshape(-1, CHUNK, x.shape[1]), inputs)
        return jax.lax.scan(body, rule.init_state(net.init(jr.key(0))), chunks)[1]

    return jax.vmap(one_stream)(streams)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("name", RETAINING)
def test_no_stream_breaks_a_retention(name, form):
    net, streams = NETS["norm"], jnp.asarray([*VALUES.values()], jnp.float32)
    reads, weights = run_each(form, RETAINING[name], net, streams)
    assert np.all(np.isfinite(reads))
    for layer, w in enumerate(np.asarray(m, np.float64) for m in weights):
        match name:
            case "elastic net":  # grows no faster than without
                start = np.linalg.norm(net.init(jr.key(0))[layer])
                n_read = CHUNK * np.arange(1, N_TOKENS // CHUNK + 1)
                largest = start + RATE * CLIP / (1 - MOMENTUM) * n_read
                assert np.all(sizes(w) <= 1.001 * largest)
            case "norm":
                assert np.all(np.sum(w**4, axis=(-2, -1)) <= 1.001)
            case "memora":
                assert np.all(w >= 0)
                np.testing.assert_allclose(np.sum(w, axis=-2), 1, rtol=1e-5)


LINEAR = MemoryNet(D, 1, norm=False)
WRITES_ALONE = DeltaRule(chunk_len=CHUNK, use_momentum=False)


@eqx.filter_jit
def run_delta(form, rule, keys, values, gates):
    """M after every chunk of 64 tokens, and at the start."""
    inputs = MemoryInputs(
        queries=keys,
        keys=keys,
        values=values,
        gates={
            name: jnp.full((len(keys), 1), gate, jnp.float32)
            for name, gate in gates.items()
        },
    )
    start = rule.init_state(LINEAR.init(jr.key(0)))

    def body(state, chunk):
        reads, state = form(rule, LINEAR, chunk, state)
        return state, (reads, state.weights[0])

    chunks = jax.tree.map(lambda x: x.reshape(-1, CHUNK, x.shape[1]), inputs)
    _, history = jax.lax.scan(body, start, chunks)
    return history, start.weights[0]


def sizes(weights):
    """Norms of matrices, which in single precision may overflow."""
    return np.linalg.norm(np.asarray(weights, np.float64), axis=(-2, -1))


def error_bounds(keys, values):
    """An error is `k M + k - v`, and `1 - theta k^T k` enlarges no memory."""
    keys, values = (np.asarray(x, np.float64) for x in (keys, values))
    return np.linalg.norm(keys - values, axis=1)


@pytest.mark.parametrize("rate", [1.0, 2.0])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_the_delta_rule_grows_at_most_linearly(form, values, rate):
    """Without clipping: unit keys and a step that replaces, or one that mirrors."""
    values = jnp.asarray(values, jnp.float32)
    keys = directions(values)
    gates = {"decay": 0.0, "learning_rate": rate}
    (reads, weights), start = run_delta(form, WRITES_ALONE, keys, values, gates)
    assert np.all(np.isfinite(reads))
    written = rate * np.cumsum(error_bounds(keys, values)).reshape(-1, CHUNK)[:, -1]
    assert np.all(sizes(weights) <= 1.001 * (sizes(start) + written))


def test_forgetting_keeps_the_delta_rule_within_one_bound_for_ever():
    decay = 0.01
    values = jnp.asarray(VALUES["random, large"], jnp.float32)
    keys = unit_norm(jr.normal(jr.key(0), values.shape))
    gates = {"decay": decay, "learning_rate": 0.5}
    (reads, weights), start = run_delta(scan_chunks, WRITES_ALONE, keys, values, gates)
    assert np.all(np.isfinite(reads))
    largest = np.max(error_bounds(keys, values))
    assert np.all(sizes(weights) <= 1.001 * (sizes(start) + 0.5 * largest / decay))


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_the_delta_rule_is_bounded_with_the_momentum_that_it_starts_with(values):
    rule = DeltaRule(chunk_len=CHUNK)
    values = jnp.asarray(values, jnp.float32)
    keys = directions(values)
    specs = rule.gate_specs(LINEAR)
    gates = {name: float(spec.starts(1)[0]) for name, spec in specs.items()}
    (reads, weights), start = run_delta(scan_chunks, rule, keys, values, gates)
    assert np.all(np.isfinite(reads))
    largest = np.max(error_bounds(keys, values))
    rate, momentum, decay = (gates[n] for n in ("learning_rate", "momentum", "decay"))
    bound = sizes(start) + rate * largest / (1 - momentum) / decay
    assert np.all(sizes(weights) <= bound)


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_the_delta_rule_is_bounded_whatever_its_gates_learn(form, decay):
    """A key that returns every 32 tokens, when its last correction has gone too far."""
    rule = DeltaRule(chunk_len=CHUNK)
    specs = rule.gate_specs(LINEAR)
    returns = jnp.arange(N_TOKENS)[:, None] % 32 == 0
    first, second = jnp.eye(D, dtype=jnp.float32)[:2, None, :]
    gates = {
        "decay": decay,
        "momentum": 0.9 * specs["momentum"].high,
        "learning_rate": 0.99 * specs["learning_rate"].high,
    }
    keys = jnp.where(returns, first, second)
    values = jnp.ones((N_TOKENS, D), jnp.float32)
    (reads, weights), start = run_delta(form, rule, keys, values, gates)
    assert np.all(np.isfinite(reads))
    written = np.cumsum(error_bounds(keys, values)).reshape(-1, CHUNK)[:, -1]
    assert np.all(sizes(weights) <= 1.001 * (sizes(start) + written / 0.1))


LAYER_STREAMS = {
    "repeated": jnp.ones((2048, 8)),
    "alternating": 1e4
    * jnp.where(jnp.arange(2048)[:, None] % 2 == 0, 1.0, -1.0)
    * jnp.ones((2048, 8)),
    "huge": 1e4 * jr.normal(jr.key(3), (2048, 8)),
    "squares overflow": 1e25 * jr.normal(jr.key(3), (2048, 8)),
    "sums overflow": 3e38 * jr.uniform(jr.key(3), (2048, 8), minval=-1.0),
}


@pytest.mark.parametrize("x", LAYER_STREAMS.values(), ids=LAYER_STREAMS.keys())
def test_a_layer_stays_finite(x):
    config = MemoryConfig(n_heads=2, chunk_len=4, expansion=2, clip=1.0)
    memory = NeuralMemory.from_config(8, config, key=jr.key(0))

    @eqx.filter_jit
    @eqx.filter_grad(has_aux=True)
    def gradient(memory):
        y, state = memory(x)
        return jnp.mean(jnp.square(y)), (y, state)

    slopes, (y, state) = gradient(memory)
    assert np.all(np.isfinite(y))
    for slope in jax.tree.leaves(slopes):
        assert np.all(np.isfinite(slope))
    for start, w in zip(memory.heads.initial_weights, state.heads.weights, strict=True):
        # |S| <= theta c / (1 - eta) and M adds one S a token: growth is at most linear.
        bound = np.linalg.norm(start) + 2048 * memory.heads.rule.max_learning_rate * 10
        assert np.linalg.norm(w) < bound
