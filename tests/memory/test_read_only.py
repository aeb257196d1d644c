"""A memory that is off: it reads M_0, and nothing of it ever changes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.memory.problems import (
    D,
    assert_identical,
    draw_problem,
    gradient_of,
    solve_both,
    zero_leaves,
)
from titans_eqx.config import MemoryConfig
from titans_eqx.memory import (
    DeltaRule,
    HierarchicalMemory,
    MemoryNet,
    NeuralMemory,
    TitansRule,
)
from titans_eqx.memory.read_only import ReadOnlyRule
from titans_eqx.nn.padding import Padding

DEEP = MemoryNet(D, 2, expansion=2)
RULES = {
    "titans": (TitansRule(chunk_len=4, decay_towards="initial"), DEEP),
    "titans, channel-wise": (TitansRule(chunk_len=4, decay="channel"), DEEP),
    "delta": (DeltaRule(chunk_len=4), MemoryNet(D, 1, norm=False)),
}


@pytest.mark.parametrize(("rule", "net"), RULES.values(), ids=RULES.keys())
def test_reads_are_those_of_the_initial_memory_for_ever(x64, rule, net):
    problem = draw_problem(rule, net, 11)
    state = rule.init_state(problem.initial)
    expected = net(problem.initial, problem.inputs.queries)
    for form in solve_both(ReadOnlyRule(rule), net):
        reads, last = form(problem.inputs, state, problem.initial)
        np.testing.assert_allclose(reads, expected, atol=1e-12)
        assert int(last.chunk_offset) == 3
        # Weights, velocity and anchor, bit for bit.
        assert_identical(
            eqx.tree_at(lambda state: state.chunk_offset, last, state.chunk_offset),
            state,
        )


@pytest.mark.parametrize(("rule", "net"), RULES.values(), ids=RULES.keys())
def test_gradients_reach_the_queries_and_the_memory_that_is_read_alone(x64, rule, net):
    problem = draw_problem(rule, net, 11)
    for form in solve_both(ReadOnlyRule(rule), net):
        gradients = gradient_of(lambda *parts, form=form: form(*parts)[0], problem)
        paths = {
            jax.tree_util.keystr(path)
            for path, _ in jax.tree.leaves_with_path(gradients)
        }
        read = {path for path in paths if path.startswith(".state.weights")}
        assert paths - zero_leaves(gradients) == read | {".inputs.queries"}


def test_nothing_is_about_to_be_written(x64):
    rule, net = RULES["titans"]
    problem = draw_problem(rule, net, 1)
    token = jax.tree.map(lambda x: x[0], problem.inputs)
    assert zero_leaves(ReadOnlyRule(rule).surprise(net, token, problem.state)) == {
        "[0]",
        "[1]",
    }


D_MODEL = 8
SMALL = {"n_heads": 2, "chunk_len": 4, "expansion": 2}
CONFIGS = {
    "titans": MemoryConfig(**SMALL),
    "delta": MemoryConfig(**SMALL, rule="delta", depth=1, norm=False),
}


def build(config, **changes):
    config = config.model_copy(update=changes)
    return NeuralMemory.from_config(D_MODEL, config, key=jr.key(0))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_parameters_and_state_are_those_of_the_memory_that_writes(config):
    on, off = build(config), build(config, off=True)
    for one, other in ((on, off), (on.init_state(), off.init_state())):
        arrays = [jax.tree.leaves_with_path(x) for x in (one, other)]
        assert [
            (jax.tree_util.keystr(path), leaf.shape, leaf.dtype)
            for path, leaf in arrays[0]
        ] == [
            (jax.tree_util.keystr(path), leaf.shape, leaf.dtype)
            for path, leaf in arrays[1]
        ]
        for (_, a), (_, b) in zip(*arrays, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_no_token_leaves_a_trace(config):
    """Without convolution an output depends on its own token alone."""
    memory = build(config, off=True, kernel_size=1)
    x = jr.normal(jr.key(1), (19, D_MODEL))
    call = eqx.filter_jit(lambda memory, x: memory(x))
    y, state = call(memory, x)
    changed, _ = call(memory, x.at[0].add(1.0))
    np.testing.assert_array_equal(y[1:], changed[1:])
    assert np.any(y[0] != changed[0])
    for start, w in zip(memory.heads.initial_weights, state.heads.weights, strict=True):
        np.testing.assert_array_equal(w, start)
    stats = eqx.filter_jit(memory.probe)(x[0], state)
    np.testing.assert_array_equal(stats.surprise, 0)


def test_no_token_leaves_a_trace_in_local_memories():
    """Nor in what leads their queries; the state is that of memories that write."""
    alone = {"kernel_size": 1, "depth": 1}
    config = MemoryConfig(
        n_heads=2, chunk_len=4, **alone, local={"chunk_lens": [2], **alone}
    )

    def build(*, off):
        changed = config.model_copy(update={"off": off})
        return HierarchicalMemory.from_config(D_MODEL, changed, key=jr.key(0))

    memory = build(off=True)
    start = memory.init_state()
    writing = jax.eval_shape(lambda: build(off=False).init_state())
    assert jax.eval_shape(memory.init_state) == writing
    x = jr.normal(jr.key(1), (5, D_MODEL))
    y, state = eqx.filter_jit(memory)(x)
    assert_identical(*(memory.snapshot(s) for s in (state, start)))
    assert_identical(state[1].heads.projector, start[1].heads.projector)
    # What each token reads by itself of the memory that none has written.
    expected, _ = eqx.filter_jit(memory.retrieve)(
        x, memory.snapshot(start), memory.init_query_state(), Padding.none(5)
    )
    np.testing.assert_allclose(y, expected, atol=1e-6)
    last, _ = eqx.filter_jit(memory.step)(x[0], state)
    np.testing.assert_allclose(last, expected[0], atol=1e-6)


def test_training_leaves_what_would_write_alone():
    memory, x = build(CONFIGS["titans"], off=True), jnp.ones((19, D_MODEL))
    x = x + jr.normal(jr.key(1), (19, D_MODEL))
    gradient = eqx.filter_jit(eqx.filter_grad(lambda m, x: jnp.sum(m(x)[0] ** 2)))(
        memory, x
    )
    zero = zero_leaves(gradient)
    others = {
        jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(gradient)
    } - zero
    writers = tuple(
        f".heads.{part}"
        for part in (
            "projections.key",
            "projections.value",
            "projections.gates",
            "initial_weights",
        )
    )
    assert all(path.startswith(writers) for path in zero)
    assert not any(path.startswith(writers) for path in others)
