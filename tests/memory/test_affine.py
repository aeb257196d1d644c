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


def run(rule, inputs, state, initial):
    padding = Padding.none(inputs.keys.shape[0])
    return scan_aligned(rule, LINEAR, inputs, state, padding, initial=initial)


def with_gradients(rule, problem):
    def loss(problem):  # another function at each call, or it is not traced again
        reads, state = answer = run(rule, *problem)
        leaves = [reads, *state.weights, *state.velocity]
        return sum(jnp.sum(jnp.sin(x)) for x in leaves), answer

    return eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))(problem)


def n_loops(rule, problem):
    """Loops over chunks in the program."""
    program = jax.make_jaxpr(lambda problem: run(rule, *problem))(problem)
    return str(program).count(" scan[")


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_chunks_side_by_side_are_chunks_in_turn(monkeypatch, x64, rule):
    """Reads, memories and gradients."""
    problem = draw_problem(rule, LINEAR, N_TOKENS)
    expected, loops = with_gradients(rule, problem), n_loops(rule, problem)
    monkeypatch.setattr(ahead, "prepares_ahead", lambda: True)
    assert n_loops(rule, problem) == loops - 1  # the rest is a block of its own
    assert largest_difference(with_gradients(rule, problem), expected) < 1e-10


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


IN_TURN = {
    "a form of its own": ReadsOfItsOwn(chunk_len=CHUNK),
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
