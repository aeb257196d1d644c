"""The fast form is the rule: equal to the definition and an oracle, in any pieces."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.memory.problems import (
    D,
    Problem,
    assert_identical,
    channel_wise,
    draw_problem,
    largest_difference,
    oracle_answer,
    solve,
    solve_both,
)
from titans_eqx.memory import (
    AbstractMemoryNet,
    GradientBoundary,
    MemoryNet,
    UpdateRule,
    scan_chunks,
)
from titans_eqx.memory.scan import scan_slots
from titans_eqx.nn import Span

# Every pair of values of the three options meets in one of these.
RULES = {
    "plain": UpdateRule(),
    "clipped, pulled back": UpdateRule(clip=0.5, decay_towards="initial"),
    "clipped, read before": UpdateRule(clip=0.5, read="before"),
    "pulled back, read before": UpdateRule(decay_towards="initial", read="before"),
}
NETS = {depth: MemoryNet(D, depth, expansion=2) for depth in (1, 2, 3)}
# Chunk length: tokens of the stream, and the phases at which it starts. Chunks are
# crossed and left unfinished.
STREAMS = {1: (5, (0,)), 8: (19, (0, 3, 7)), 64: (70, (0, 40))}
CASES = [
    (depth, chunk_len, rule)
    for depth in NETS
    for chunk_len in STREAMS
    for rule in ("plain", "clipped, pulled back")
] + [(2, 8, rule) for rule in RULES if rule.endswith("before")]


@pytest.mark.parametrize(("depth", "chunk_len", "rule"), CASES)
def test_both_forms_equal_the_oracle(x64, depth, chunk_len, rule):
    net, rule = NETS[depth], RULES[rule]
    n_tokens, phases = STREAMS[chunk_len]
    forms = solve_both(net, chunk_len, rule)
    for phase in phases:
        problem = draw_problem(net, n_tokens, phase=phase)
        expected = oracle_answer(problem, net, chunk_len, rule)
        for form in forms:
            assert largest_difference(form(*problem), expected) < 1e-10


@pytest.mark.parametrize("rule", RULES)
def test_channel_wise_decay_equals_the_oracle(x64, rule):
    rule = RULES[rule]
    for depth, chunk_len, n_tokens, phase in (
        (1, 8, 19, 3),
        (2, 8, 19, 7),
        (2, 4, 8, 0),
    ):
        net = NETS[depth]
        problem = channel_wise(draw_problem(net, n_tokens, phase=phase), net)
        expected = oracle_answer(problem, net, chunk_len, rule)
        for form in solve_both(net, chunk_len, rule):
            assert largest_difference(form(*problem), expected) < 1e-10


CHUNK = 8
run_pulled_back = solve(scan_chunks, NETS[2], CHUNK, RULES["clipped, pulled back"])


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    phase=st.integers(0, CHUNK - 1),
    # Few lengths, since each is compiled: one token, part of a chunk, a chunk, more.
    pieces=st.lists(st.sampled_from([1, 3, 8, 11]), min_size=1, max_size=7),
)
def test_any_pieces_of_a_stream_equal_the_oracle_on_the_whole(x64, phase, pieces):
    problem = draw_problem(NETS[2], sum(pieces), phase=phase)
    expected = oracle_answer(problem, NETS[2], CHUNK, RULES["clipped, pulled back"])
    # As NumPy arrays, whose slices need no compilation.
    stream, state = jax.tree.map(np.asarray, problem.inputs), problem.state
    reads, start = [], 0
    for piece in pieces:
        rows = slice(start, start + piece)
        inputs = jax.tree.map(lambda x, rows=rows: x[rows], stream)
        y, state = run_pulled_back(inputs, state, problem.initial)
        reads.append(np.asarray(y))
        start += piece
    assert largest_difference((np.concatenate(reads), state), expected) < 1e-10


@pytest.mark.parametrize("n_tokens", [5, 16, 21])
def test_a_stream_known_to_start_a_chunk_equals_the_oracle(x64, n_tokens):
    net, rule = NETS[2], RULES["clipped, read before"]
    problem = draw_problem(net, n_tokens)
    aligned = eqx.filter_jit(
        lambda problem: scan_slots(
            net,
            problem.inputs,
            Span.whole(n_tokens),
            problem.state,
            chunk_len=CHUNK,
            rule=rule,
        )
    )
    expected = oracle_answer(problem, net, CHUNK, rule)
    assert largest_difference(aligned(problem), expected) < 1e-10


def test_gates_of_exactly_one_and_zero_equal_the_oracle(x64):
    """A decay of 1 forgets everything, a momentum of 0 carries nothing on."""
    net, rule = NETS[2], RULES["plain"]
    forms = solve_both(net, CHUNK, rule)
    problem = draw_problem(net, 19, phase=3)
    for tokens in (slice(None), slice(4, 7), slice(12, None, 3)):
        inputs = eqx.tree_at(
            lambda x: (x.decay, x.momentum),
            problem.inputs,
            (
                problem.inputs.decay.at[tokens].set(1.0),
                problem.inputs.momentum.at[tokens].set(0.0),
            ),
        )
        extreme = problem._replace(inputs=inputs)
        expected = oracle_answer(extreme, net, CHUNK, rule)
        for form in forms:
            assert largest_difference(form(*extreme), expected) < 1e-10


BOUNDARIES = {
    "first order": GradientBoundary(surprise="first_order"),
    "full": GradientBoundary(surprise="full"),
    "full, truncated": GradientBoundary(surprise="full", truncate_every=1),
}


@pytest.mark.parametrize("boundary", BOUNDARIES.values(), ids=BOUNDARIES.keys())
def test_gradients_of_both_forms_agree(x64, boundary):
    """By every input, by M_0 and by every part of the state that came in."""
    net = NETS[2]
    rule = UpdateRule(clip=0.5, decay_towards="initial", boundary=boundary)
    problem = draw_problem(net, 19, phase=3)

    def gradient(form):
        def loss(problem: Problem):
            # Sums of squares: the cotangents of all outputs differ.
            outputs = eqx.filter(form(*problem), eqx.is_inexact_array)
            return sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(outputs))

        return eqx.filter_jit(eqx.filter_grad(loss))(problem)

    fast, slow = map(gradient, solve_both(net, CHUNK, rule))
    assert largest_difference(fast, slow) < 1e-9
    # The anchor is only where surprises are taken, which first order does not see.
    is_full = boundary.surprise == "full"
    anchors = set() if is_full else {".state.anchor[0]", ".state.anchor[1]"}
    for gradients in (fast, slow):
        without = {
            jax.tree_util.keystr(path)
            for path, leaf in jax.tree.leaves_with_path(gradients)
            if not np.any(leaf)
        }
        assert without == anchors


class SkipNet(AbstractMemoryNet):
    """A network that the package has never seen: tanh, a skip, a last scaling."""

    @property
    def shapes(self):
        return (D, 3), (3, D), (D, D)

    def forward(self, linear, x):
        middle = x + linear(1, jnp.tanh(linear(0, x)))
        return jnp.sin(linear(2, middle)) * 2.0 + middle


def test_a_new_network_gets_the_chunked_form_for_free(x64):
    net = SkipNet()
    problem = draw_problem(net, 19, phase=3)
    fast, slow = solve_both(net, CHUNK, RULES["clipped, pulled back"])
    assert largest_difference(fast(*problem), slow(*problem)) < 1e-10


def test_padding_is_an_exact_no_op(getkey):
    net, rule = NETS[2], RULES["clipped, pulled back"]
    problem = draw_problem(net, 4 * CHUNK, phase=3)

    @eqx.filter_jit
    def run(inputs, start, stop):
        span = Span(start, stop, 4 * CHUNK, is_whole=False)
        return scan_slots(
            net,
            inputs,
            span,
            problem.state,
            chunk_len=CHUNK,
            rule=rule,
            initial=problem.initial,
        )

    def at(slot: int):
        return jnp.asarray(slot, jnp.int32)

    # No real slot at all: nothing moves, wherever the empty span lies.
    for slot in (3, 20):
        _, state = run(problem.inputs, at(slot), at(slot))
        assert_identical(state, problem.state)

    # Some real slots: what lies in the others cannot be told from the outcome.
    start, stop = at(3), at(13)
    is_real = (jnp.arange(4 * CHUNK) >= start) & (jnp.arange(4 * CHUNK) < stop)
    garbage = jax.tree.map(
        lambda x: jnp.where(is_real[:, None], x, 1e3 * x**2), problem.inputs
    )
    reads, state = run(problem.inputs, start, stop)
    reads_beside_garbage, state_beside_garbage = run(garbage, start, stop)
    assert_identical(state, state_beside_garbage)
    assert_identical(reads[3:13], reads_beside_garbage[3:13])
