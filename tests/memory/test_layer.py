import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tests.memory.problems import assert_identical, largest_difference
from tests.oracles import blocks
from tests.oracles.memory import surprise
from titans_eqx.config import MemoryConfig
from titans_eqx.memory import DeltaRule, MemoryNet, NeuralMemory
from titans_eqx.nn.padding import Padding

D_MODEL, N_TOKENS = 8, 19
SMALL = {"n_heads": 2, "chunk_len": 4, "expansion": 2}
LINEAR = {"depth": 1, "norm": False}
CONFIGS = {
    "default": MemoryConfig(**SMALL),
    "linear": MemoryConfig(**SMALL, depth=1),
    "no_conv": MemoryConfig(**SMALL, kernel_size=1),
    "no_momentum": MemoryConfig(**SMALL, use_momentum=False),
    "no_decay": MemoryConfig(**SMALL, decay="none"),
    "channel_decay": MemoryConfig(**SMALL, decay="channel", decay_towards="initial"),
    "gate_per_head": MemoryConfig(**SMALL, gates="per_head"),
    "to_initial": MemoryConfig(**SMALL, decay_towards="initial", read="before"),
    "delta": MemoryConfig(**SMALL, **LINEAR, rule="delta"),
    "delta_alone": MemoryConfig(
        **SMALL,
        **LINEAR,
        rule="delta",
        use_momentum=False,
        decay="none",
        read="before",
        kernel_size=1,
        residual=False,
    ),
    "next": MemoryConfig(**SMALL, target="next"),
    "zero": MemoryConfig(**SMALL, initial_output="zero"),
    "linear_path": MemoryConfig(
        **SMALL,
        **LINEAR,
        rule="delta",
        degree=2,
        feature_scale=4.0,
        key_start="context",
        value_activation="none",
        value_norm=True,
        read_norm=False,
        gate_start="open",
    ),
    "off": MemoryConfig(**SMALL, off=True),
}
call = eqx.filter_jit(lambda memory, x, state: memory(x, state))
step = eqx.filter_jit(lambda memory, x, state: memory.step(x, state))


def build(config):
    return NeuralMemory.from_config(D_MODEL, config, key=jr.key(0))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
def test_a_memory_that_starts_at_zero_knows_nothing(depth, residual):
    config = MemoryConfig(
        **SMALL, depth=depth, residual=residual, initial_output="zero", off=True
    )

    @eqx.filter_jit
    def read(heads, x):
        projections, padding = heads.projections, Padding.none(N_TOKENS)
        start = projections.query.conv.init_state()
        queries, _ = projections.queries(x, start, padding)
        return heads(x, heads.init_state())[0], queries

    reads, queries = read(build(config).heads, tokens())
    np.testing.assert_array_equal(reads, queries if residual else 0 * queries)


def test_without_a_norm_a_memory_that_knows_nothing_adds_nothing():
    config = MemoryConfig(
        **SMALL, residual=False, initial_output="zero", read_norm=False, off=True
    )
    y, _ = call(build(config), tokens(), None)
    np.testing.assert_array_equal(y, 0 * y)


@pytest.mark.parametrize(
    "option", ["value_activation", "key_start", "query_start", "gate_start"]
)
def test_an_unknown_option_is_refused(option):
    with pytest.raises((ValueError, TypeCheckError), match=option):
        NeuralMemory(
            D_MODEL,
            n_heads=2,
            net=MemoryNet(D_MODEL // 2),
            rule=DeltaRule(),
            **{option: "other"},
            key=jr.key(0),
        )


def tokens(n=N_TOKENS):
    return jr.normal(jr.key(1), (n, D_MODEL))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_pieces_and_steps_equal_the_sequence(config):
    memory, x = build(config), tokens()
    whole, last = call(memory, x, None)

    # Of one length, which is compiled once; the second goes on inside a chunk.
    state, reads = memory.init_state(), []
    for start, stop in ((0, 8), (8, 9), (9, 10), (10, 11), (11, 19)):
        if stop - start > 1:
            y, state = call(memory, x[start:stop], state)
        else:
            y, state = step(memory, x[start], state)
        reads.append(np.reshape(y, (-1, D_MODEL)))
    assert largest_difference((np.concatenate(reads), state), (whole, last)) < 1e-10

    state, reads = memory.init_state(), []
    for token in x:
        y, state = step(memory, token, state)
        reads.append(np.asarray(y))
    assert largest_difference((np.stack(reads), state), (whole, last)) < 1e-10


@pytest.fixture(scope="module", params=["default", "delta", "next"])
def slopes(request):
    """The gradients of each output, its numbers weighed, by memory and by tokens."""
    memory, x = build(CONFIGS[request.param]), tokens()
    weights = np.random.default_rng(0).normal(size=x.shape)

    @eqx.filter_jit
    @eqx.filter_grad
    def gradients(trained, weights):
        memory, x = trained
        return jnp.sum(memory(x)[0] * weights)

    each = [
        gradients((memory, x), jnp.asarray(row[:, None] * weights, x.dtype))
        for row in np.eye(N_TOKENS)
    ]
    return memory, jax.tree.map(lambda *rows: np.stack(rows), *each)


def test_no_output_depends_on_a_later_token(slopes):
    _, (_, by_token) = slopes
    influence = np.abs(by_token).sum(axis=2)
    is_past = np.tril(np.ones((N_TOKENS, N_TOKENS), bool))
    assert np.all(influence[~is_past] == 0)
    assert np.all(influence[is_past] > 0)


def test_batch_rows_do_not_talk_and_equal_a_row_alone():
    memory = build(CONFIGS["default"])
    x = jr.normal(jr.key(1), (3, N_TOKENS, D_MODEL))
    batch = jax.jit(jax.vmap(memory))
    y, _ = batch(x)
    alone, _ = call(memory, x[1], None)
    np.testing.assert_allclose(y[1], alone, atol=1e-5)
    changed, _ = batch(x.at[0].add(1.0))
    np.testing.assert_array_equal(changed[1:], y[1:])


def test_gradient_reaches_everything_but_the_frozen_memory(slopes):
    memory, (by_parameter, _) = slopes
    without = {
        jax.tree_util.keystr(path, simple=True)
        for path, leaf in jax.tree.leaves_with_path(by_parameter)
        if not np.any(leaf.sum(axis=0))
    }
    assert len(without) == memory.heads.net.depth
    assert all("initial_weights" in name for name in without)


def test_half_precision_keeps_a_wide_state():
    memory = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if eqx.is_inexact_array(x) else x,
        build(CONFIGS["default"]),
    )
    y, state = jax.eval_shape(memory, tokens().astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert all(w.dtype == jnp.float32 for w in state.heads.weights)
    token = jnp.zeros(D_MODEL, jnp.bfloat16)
    y, state = jax.eval_shape(memory.step, token, state)
    assert y.dtype == jnp.bfloat16
    assert all(w.dtype == jnp.float32 for w in state.heads.velocity)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match=r"n_heads=3 and\s+d_model=8"):
        NeuralMemory.from_config(8, MemoryConfig(n_heads=3), key=jr.key(0))
    with pytest.raises(ValueError, match=r"n_heads=0 and\s+d_model=8"):
        NeuralMemory(8, n_heads=0, net=MemoryNet(4), rule=DeltaRule(), key=jr.key(0))
    with pytest.raises(TypeCheckError):
        build(CONFIGS["default"])(jnp.ones((5, D_MODEL + 1)))


def test_a_network_that_the_rule_cannot_write_is_refused():
    with pytest.raises(ValueError, match="the delta rule writes linear memories only"):
        NeuralMemory(8, n_heads=2, net=MemoryNet(4), rule=DeltaRule(), key=jr.key(0))


def test_a_prefix_is_read_as_a_chunk_of_its_own(x64):
    """The sequence then starts where a chunk does, at the weights that it left."""
    memory, prefix = build(CONFIGS["default"]), tokens(7)[:3]
    state = eqx.filter_jit(NeuralMemory.init_state)(memory, prefix)
    _, read = call(memory, prefix, memory.init_state())
    assert int(read.heads.chunk_offset[0]) == 3
    assert_identical(state.heads.chunk_offset, np.zeros(2, np.int32))
    assert largest_difference(state.heads.weights, read.heads.weights) < 1e-10
    assert largest_difference(state.heads.velocity, read.heads.velocity) < 1e-10
    assert_identical(state.heads.anchor, state.heads.weights)
    assert largest_difference(state.projections, read.projections) < 1e-10
    assert_identical(memory.init_state(prefix[:0]), memory.init_state())


def numpy_heads(rows):
    return np.asarray(rows).reshape(len(rows), 2, D_MODEL // 2).swapaxes(0, 1)


def projected(projection, x):
    rows = np.asarray(x) @ np.asarray(projection.linear.weight).T
    kernel = np.asarray(projection.conv.kernel)
    return numpy_heads(blocks.silu(blocks.causal_conv(rows, kernel)))


@pytest.mark.parametrize("n_before", [0, 6])
@pytest.mark.parametrize("name", ["default", "channel_decay", "delta"])
def test_a_probe_equals_values_by_hand_and_changes_nothing(x64, name, n_before):
    memory, x = build(CONFIGS[name]), tokens(n_before + 1)
    state = memory.init_state()
    if n_before > 0:
        _, state = call(memory, x[:n_before], state)
    before = jax.tree.map(np.array, state)
    stats = eqx.filter_jit(NeuralMemory.probe)(memory, x[-1], state)
    assert_identical(state, before)

    keys = blocks.unit_norm(projected(memory.heads.projections.key, x))
    values = projected(memory.heads.projections.value, x)
    specs = memory.heads.rule.gate_specs(memory.heads.net)
    assert stats.gates.keys() == specs.keys() == {"decay", "momentum", "learning_rate"}
    gates = {}
    for gate, spec in specs.items():
        linear = memory.heads.projections.gates.linears[gate]
        logits = np.asarray(linear.weight) @ np.asarray(x[-1]) + np.asarray(linear.bias)
        gates[gate] = spec.high * blocks.sigmoid(logits).reshape(2, spec.size)
        np.testing.assert_allclose(stats.gates[gate], gates[gate], atol=1e-12)

    _, after = step(memory, x[-1], state)
    heads = state.heads
    anchors = heads.weights if name == "delta" else heads.anchor
    for head in range(2):
        gradient = surprise(
            [np.asarray(w[head]) for w in anchors],
            keys[head, -1],
            values[head, -1],
            norm=memory.heads.net.norm,
        )
        size = np.sqrt(sum(np.sum(u**2) for u in gradient))
        np.testing.assert_allclose(stats.surprise[head], size, atol=1e-10)
        written = np.sqrt(sum(np.sum(np.square(w[head])) for w in after.heads.weights))
        np.testing.assert_allclose(stats.weight_norm[head], written, atol=1e-10)

        # The write by hand, too; channel-wise decay has an alpha for each row.
        widths = [len(w) if name == "channel_decay" else 1 for w in gradient]
        alphas = np.split(gates["decay"][head], np.cumsum(widths)[:-1])
        clip = 1.0 if name == "delta" else min(1.0, memory.heads.rule.clip / size)
        square = 0.0
        for layer, u in enumerate(gradient):
            theta = gates["learning_rate"][head, layer] * clip
            eta = gates["momentum"][head, layer]
            m, s = (np.asarray(x[layer][head]) for x in (heads.weights, heads.velocity))
            new = (1 - alphas[layer][:, None]) * m + eta * s - theta * u
            if name == "channel_decay":  # this one decays towards M_0
                m0 = np.asarray(memory.heads.initial_weights[layer][head])
                new = new + alphas[layer][:, None] * m0
            square += np.sum(new**2)
        np.testing.assert_allclose(stats.weight_norm[head], np.sqrt(square), atol=1e-10)
