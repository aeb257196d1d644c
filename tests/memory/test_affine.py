"""Chunks as maps of the memory: the same memories and reads without a loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.memory.problems import D, draw_problem, largest_difference
from tests.sharding.devices import over_devices
from titans_eqx.memory import DeltaRule, MemoryNet, OuterGradient, ahead
from titans_eqx.memory.affine import AffineMap, memories_between
from titans_eqx.memory.scan import scan_aligned
from titans_eqx.nn.padding import Padding

CHUNK = 4
N_TOKENS = 6 * CHUNK + 3  # six whole chunks and a rest
LINEAR = MemoryNet(D, 1, norm=False)
MONOMIALS = MemoryNet(D, 1, norm=False, degree=2)  # more rows than columns
RULES = {
    "momentum": DeltaRule(chunk_len=CHUNK),
    "read before": DeltaRule(chunk_len=CHUNK, read="before"),
    "no momentum": DeltaRule(chunk_len=CHUNK, use_momentum=False),
    "no decay": DeltaRule(chunk_len=CHUNK, use_decay=False, use_momentum=False),
    "gated, mirroring": DeltaRule(
        chunk_len=CHUNK,
        use_momentum=False,
        error_after_decay=True,
        max_learning_rate=2.0,
    ),
    "learned start": DeltaRule(
        chunk_len=CHUNK, outer_gradient=OuterGradient(initial_memory="learned")
    ),
}


@pytest.fixture
def accelerator(monkeypatch):
    """Programs as on an accelerator."""
    monkeypatch.setattr(ahead, "prepares_ahead", lambda: True)


@pytest.mark.parametrize("n_chunks", range(10))
def test_the_memories_between_chunks_are_those_of_one_after_the_other(x64, n_chunks):
    rng = np.random.default_rng(n_chunks)
    kept, change, offset = (
        rng.normal(size=(n_chunks, *shape)) for shape in ((2, 2), (6, 6), (6, 3))
    )
    memory = rng.normal(size=(6, 3))
    maps = AffineMap(*map(jnp.asarray, (kept, change, offset)))
    actual = jax.jit(memories_between)(jnp.asarray(memory), maps)
    expected = [memory]
    for k, c, o in zip(kept, change, offset, strict=True):
        expected.append((np.kron(k, np.eye(3)) + c) @ expected[-1] + o)
    np.testing.assert_allclose(actual, np.stack(expected), rtol=1e-10)


def run(rule, inputs, state, initial, net=LINEAR):
    padding = Padding.none(inputs.keys.shape[0])
    return scan_aligned(rule, net, inputs, state, padding, initial=initial)


def with_gradients(rule, problem, net):
    def loss(problem):  # another function at each call, or it is not traced again
        reads, state = answer = run(rule, *problem, net)
        leaves = [reads, *state.weights, *state.velocity]
        return sum(jnp.sum(jnp.sin(x)) for x in leaves), answer

    return eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))(problem)


def n_loops(rule, problem, net=LINEAR):
    """Loops over chunks in the program."""
    program = jax.make_jaxpr(lambda problem: run(rule, *problem, net))(problem)
    return str(program).count(" scan[")


@pytest.mark.parametrize(
    ("name", "net"), [*((name, LINEAR) for name in RULES), ("no decay", MONOMIALS)]
)
def test_chunks_side_by_side_are_chunks_in_turn(monkeypatch, x64, name, net):
    """Reads, memories and gradients."""
    rule = RULES[name]
    problem = draw_problem(rule, net, N_TOKENS)
    expected, loops = with_gradients(rule, problem, net), n_loops(rule, problem, net)
    monkeypatch.setattr(ahead, "prepares_ahead", lambda: True)
    # The tokens after the last whole chunk are a block of their own.
    assert n_loops(rule, problem, net) == loops - 1
    assert largest_difference(with_gradients(rule, problem, net), expected) < 1e-10


def test_one_chunk_is_no_map(accelerator):
    rule = RULES["momentum"]
    assert n_loops(rule, draw_problem(rule, LINEAR, CHUNK)) == 1


@pytest.mark.parametrize("d", [3, 32, 64])
def test_single_precision_is_right_in_every_width(d):
    """Of one map jaxlib 0.10.2 once made a program with NaN, see `_mixed`."""
    rng = np.random.default_rng(d)
    kept, change, offset = (
        rng.normal(size=(1, *shape)) / shape[-1]
        for shape in ((2, 2), (2 * d, 2 * d), (2 * d, d))
    )
    memory = rng.normal(size=(2 * d, d))
    start, *single = (jnp.float32(x) for x in (memory, kept, change, offset))
    actual = jax.jit(memories_between)(start, AffineMap(*single))
    expected = (np.kron(kept[0], np.eye(d)) + change[0]) @ memory + offset[0]
    np.testing.assert_allclose(actual[1], expected, atol=1e-5)


def test_later_chunks_do_not_reach_earlier_reads(accelerator, x64):
    rule = RULES["momentum"]
    problem = draw_problem(rule, LINEAR, N_TOKENS)
    last = 3 * CHUNK + 1

    @jax.jit
    def slopes(inputs):
        def early(inputs):
            reads, _ = run(rule, inputs, problem.state, problem.initial)
            return jnp.sum(jnp.sin(reads[: last + 1]))

        return jax.grad(early)(inputs)

    for leaf in jax.tree.leaves(slopes(problem.inputs)):
        assert np.all(leaf[last + 1 :] == 0)
        assert np.any(leaf[last] != 0)


class ReadsOfItsOwn(DeltaRule):
    """A rule from outside that changes a form which `chunk_map` stands for."""

    def chunk_prepared(self, *args):
        """Half the reads."""
        reads, state = super().chunk_prepared(*args)
        return reads / 2, state


class StopsBetweenChunks(DeltaRule):
    """Another: the velocity ends with its chunk."""

    def end_chunk(self, state):
        """Without velocity."""
        weights, velocity = super().end_chunk(state)
        return weights, jax.tree.map(jnp.zeros_like, velocity)


IN_TURN = {
    "a chunk of its own": ReadsOfItsOwn(chunk_len=CHUNK),
    "an end of its own": StopsBetweenChunks(chunk_len=CHUNK),
    "truncated": DeltaRule(
        chunk_len=CHUNK, outer_gradient=OuterGradient(truncate_every=2)
    ),
    "a map larger than its chunk": DeltaRule(chunk_len=1),
}


@pytest.mark.parametrize("rule", IN_TURN.values(), ids=IN_TURN.keys())
def test_some_chunks_stay_in_turn(accelerator, rule):
    assert n_loops(rule, draw_problem(rule, LINEAR, 6 * rule.chunk_len)) == 1


def test_rows_on_several_devices_are_rows_of_one(accelerator, x64):
    rule = RULES["momentum"]
    inputs, state, initial = draw_problem(rule, LINEAR, N_TOKENS)
    factors = jnp.arange(1.0, jax.device_count() + 1) / jax.device_count()
    rows = jax.tree.map(lambda x: jnp.multiply.outer(factors, x), inputs)

    def answers(rows):
        """Reads, memories, and the gradient of each row by itself."""

        def loss(row):
            reads, after = run(rule, row, state, initial)
            return jnp.sum(jnp.sin(reads)), (reads, after.weights)

        return jax.vmap(jax.grad(loss, has_aux=True))(rows)

    actual = over_devices(answers, rows)
    assert largest_difference(actual, jax.jit(answers)(rows)) < 1e-12
