"""The delta rule: both forms equal an oracle, whatever the chunks and the pieces."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.memory.problems import (
    D,
    delta_answer,
    draw_problem,
    gradient_of,
    largest_difference,
    solve,
    solve_both,
    solve_in_pieces,
    sum_of_squares,
    zero_leaves,
)
from tests.oracles.gated_delta import gated_delta_oracle
from titans_eqx.config import MemoryConfig, ModelConfig
from titans_eqx.memory import (
    DeltaRule,
    MemoryInputs,
    MemoryNet,
    NeuralMemory,
    scan_chunks,
    scan_tokens,
)

pytestmark = pytest.mark.usefixtures("x64")
NETS = {
    residual: MemoryNet(D, 1, residual=residual, norm=False)
    for residual in (True, False)
}
NET = NETS[True]
GATES = {
    "all gates": {},
    "no momentum": {"use_momentum": False},
    "no decay": {"use_decay": False},
    "learning rate alone": {"use_momentum": False, "use_decay": False},
    "error after decay": {"error_after_decay": True},
}
# Chunk length: tokens of the stream, and the offsets at which it starts.
STREAMS = {1: (5, (0,)), 8: (19, (0, 3, 7)), 64: (70, (0, 40))}
CASES = [
    (8, gates, residual, read)
    for gates in GATES
    for residual in NETS
    for read in ("after", "before")
] + [(chunk_len, "all gates", True, "after") for chunk_len in (1, 64)]


@pytest.mark.parametrize(("chunk_len", "gates", "residual", "read"), CASES)
def test_both_forms_equal_the_oracle(chunk_len, gates, residual, read):
    net = NETS[residual]
    rule = DeltaRule(chunk_len=chunk_len, read=read, **GATES[gates])
    n_tokens, offsets = STREAMS[chunk_len]
    forms = solve_both(rule, net)
    for offset in offsets:
        problem = draw_problem(rule, net, n_tokens, chunk_offset=offset)
        expected = delta_answer(rule, net, problem)
        for form in forms:
            assert largest_difference(form(*problem), expected) < 1e-10


@pytest.mark.parametrize("gates", ["all gates", "no momentum"])
def test_results_do_not_depend_on_the_chunk_length(gates):
    outcomes = []
    for chunk_len in (1, 3, 16, 64):
        rule = DeltaRule(chunk_len=chunk_len, **GATES[gates])
        problem = draw_problem(rule, NET, 33)
        reads, state = solve(scan_chunks, rule, NET)(*problem)
        outcomes.append((reads, state.weights, state.velocity))
    for outcome in outcomes[1:]:
        assert largest_difference(outcome, outcomes[0]) < 1e-10


RULE = DeltaRule(chunk_len=8)
run_chunks = solve(scan_chunks, RULE, NET)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    offset=st.integers(0, RULE.chunk_len - 1),
    # Few lengths, since each is compiled: one token, part of a chunk, a chunk, more.
    pieces=st.lists(st.sampled_from([1, 3, 8, 11]), min_size=1, max_size=7),
)
def test_any_pieces_of_a_stream_equal_the_oracle_on_the_whole(offset, pieces):
    problem = draw_problem(RULE, NET, sum(pieces), chunk_offset=offset)
    expected = delta_answer(RULE, NET, problem)
    actual = solve_in_pieces(run_chunks, problem, pieces)
    assert largest_difference(actual, expected) < 1e-10


EXTREMES = {
    "all forgotten, nothing carried on, written whole": (1.0, 0.0, 1.0),
    "nothing forgotten, all carried on, not written": (0.0, 1.0, 0.0),
}


@pytest.mark.parametrize("extremes", EXTREMES.values(), ids=EXTREMES.keys())
def test_gates_of_exactly_one_and_zero_equal_the_oracle(extremes):
    forms = solve_both(RULE, NET)
    problem = draw_problem(RULE, NET, 19, chunk_offset=3)
    inputs = problem.inputs
    for tokens in (slice(None), slice(4, 7), slice(12, None, 3)):
        gates = {
            name: inputs.gates[name].at[tokens].set(extreme)
            for name, extreme in zip(
                ("decay", "momentum", "learning_rate"), extremes, strict=True
            )
        }
        extreme = problem._replace(
            inputs=MemoryInputs(inputs.queries, inputs.keys, inputs.values, gates)
        )
        expected = delta_answer(RULE, NET, extreme)
        for form in forms:
            assert largest_difference(form(*extreme), expected) < 1e-10


GRADIENT_CASES = {
    "all gates": (RULE, NETS[True]),
    "no momentum": (DeltaRule(chunk_len=8, use_momentum=False), NETS[True]),
    "no decay, no residual, read before": (
        DeltaRule(chunk_len=8, use_decay=False, read="before"),
        NETS[False],
    ),
    "error after decay": (DeltaRule(chunk_len=8, error_after_decay=True), NETS[True]),
}


@pytest.mark.parametrize(
    ("rule", "net"), GRADIENT_CASES.values(), ids=GRADIENT_CASES.keys()
)
def test_gradients_of_both_forms_agree_with_differences_of_the_oracle(rule, net):
    """By every input, by M_0 and by every part of the state that came in."""
    problem = draw_problem(rule, net, 19, chunk_offset=3)
    fast, slow = (gradient_of(form, problem) for form in solve_both(rule, net))
    assert largest_difference(fast, slow) < 1e-9
    # The rule never goes back to M_0; all else has a part in the outcome.
    assert zero_leaves(fast) == zero_leaves(slow) == {".initial[0]"}

    leaves, structure = jax.tree.flatten(problem)
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(problem)]
    slopes = {jax.tree_util.keystr(p): x for p, x in jax.tree.leaves_with_path(fast)}
    rng = np.random.default_rng(0)

    def total(place, index, move):
        moved = list(leaves)
        moved[place] = moved[place].at[index].add(move)
        problem = structure.unflatten(moved)
        return float(sum_of_squares(delta_answer(rule, net, problem)))

    width = 1e-5
    for place, path in enumerate(paths):
        if path not in slopes:
            continue  # the offset
        for index in {tuple(rng.integers(leaves[place].shape)) for _ in range(3)}:
            above, below = (total(place, index, move) for move in (width, -width))
            slope = (above - below) / (2 * width)
            np.testing.assert_allclose(
                slopes[path][index], slope, rtol=1e-6, atol=1e-7, err_msg=path
            )


@pytest.mark.parametrize("chunk_len", [1, 8])
def test_errors_after_the_decay_are_those_of_gated_deltanet(chunk_len):
    rule = DeltaRule(chunk_len=chunk_len, use_momentum=False, error_after_decay=True)
    net = NETS[False]
    inputs = draw_problem(rule, net, 19).inputs
    queries, keys, values, gates = jax.tree.map(
        np.asarray, (inputs.queries, inputs.keys, inputs.values, inputs.gates)
    )
    kept, beta = 1 - gates["decay"][:, 0], gates["learning_rate"][:, 0]
    expected, state = gated_delta_oracle(queries, keys, values, kept, beta)
    zero = (jnp.zeros((D, D)),)
    for form in solve_both(rule, net):
        reads, last = form(inputs, rule.init_state(zero), zero)
        np.testing.assert_allclose(reads / D**0.5, expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(last.weights[0], state, rtol=0, atol=1e-10)


def test_an_error_after_no_decay_is_refused():
    with pytest.raises(ValueError, match="error_after_decay needs a decay"):
        DeltaRule(use_decay=False, error_after_decay=True)
    for memory, message in (
        ({"rule": "titans"}, r"error_after_decay must be left out with .* got true"),
        ({"decay": "none"}, r'decay must be "scalar" with .*error_after_decay = true'),
    ):
        linear = {"rule": "delta", "depth": 1, "norm": False}
        config = MemoryConfig(**{**linear, **memory}, error_after_decay=True)
        with pytest.raises(ValidationError, match=message):
            ModelConfig(memory=config)


ALONE = {"use_momentum": False, "use_decay": False}


@pytest.mark.parametrize(
    ("options", "largest"),
    [({}, 1), ({"use_momentum": False}, 1), ({"use_decay": False}, 1), (ALONE, 2)],
    ids=["default", "no momentum", "no decay", "neither"],
)
def test_steps_that_go_too_far_are_refused(options, largest):
    DeltaRule(**options, max_learning_rate=float(largest))
    for rate in (0.0, largest + 0.1):
        message = f"max_learning_rate must be > 0 and <= {largest} .*got .*={rate}"
        with pytest.raises(ValueError, match=message):
            DeltaRule(**options, max_learning_rate=rate)


@pytest.mark.parametrize("every", [1, 24], ids=["always", "rarely"])
@pytest.mark.parametrize(
    "options",
    [{}, {"use_momentum": False}, {**ALONE, "max_learning_rate": 2.0}],
    ids=["default", "no momentum", "mirroring"],
)
def test_a_memory_of_features_longer_than_the_key_stays_bounded(options, every):
    """The key with the longest, and each gate near one end of its range."""
    rule, net = DeltaRule(chunk_len=8, **options), MemoryNet(D, 1, norm=False, degree=2)
    n_tokens = 2_400
    keys = np.zeros((n_tokens, D))
    keys[::every, 0] = 1.0
    keys, values = jnp.asarray(keys), jnp.ones((n_tokens, D))
    state = rule.init_state((jnp.zeros(net.shapes[0]),))
    scan = jax.jit(partial(scan_chunks, rule, net))
    specs = rule.gate_specs(net)
    for shares in itertools.product((0.01, 0.99), repeat=len(specs)):
        gates = {
            name: jnp.full((n_tokens, 1), share * spec.high)
            for (name, spec), share in zip(specs.items(), shares, strict=True)
        }
        _, after = scan(MemoryInputs(keys, keys, values, gates), state)
        assert np.max(np.abs(after.weights[0])) < 3


def test_a_memory_that_is_not_linear_is_refused():
    for net in (MemoryNet(D, 2), MemoryNet(D, 1)):
        with pytest.raises(ValueError, match=r"writes linear memories only.*depth=1"):
            NeuralMemory(D, n_heads=1, net=net, rule=RULE, key=jr.key(0))
        problem = draw_problem(RULE, NET, 3)
        state = RULE.init_state(net.init(jr.key(0)))
        for form in (scan_chunks, scan_tokens):
            with pytest.raises(ValueError, match="writes linear memories only"):
                form(RULE, net, problem.inputs, state)


def test_a_learning_rate_of_one_stores_a_value_at_once():
    rule = DeltaRule(chunk_len=4, use_momentum=False, use_decay=False)
    problem = draw_problem(rule, NET, 7)
    inputs = problem.inputs
    gates = {"learning_rate": jnp.ones((7, 1))}
    inputs = MemoryInputs(inputs.keys, inputs.keys, inputs.values, gates)
    for form in solve_both(rule, NET):
        reads, _ = form(inputs, problem.state, problem.initial)
        np.testing.assert_allclose(reads, inputs.values, atol=1e-12)
