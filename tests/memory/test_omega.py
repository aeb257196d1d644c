"""The Omega rule: both forms equal an oracle, whatever the window and the pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.memory.problems import (
    D,
    draw_problem,
    gradient_of,
    largest_difference,
    solve,
    solve_both,
    solve_in_pieces,
    sum_of_squares,
    zero_leaves,
)
from tests.oracles.omega import Pair, omega_oracle
from titans_eqx.config import MemoryConfig
from titans_eqx.memory import (
    HuberLoss,
    MemoryInputs,
    MemoryNet,
    OmegaRule,
    OuterGradient,
    TitansRule,
    check_rule,
    scan_chunks,
)
from titans_eqx.memory.omega import OmegaState
from titans_eqx.memory.titans import TitansState

pytestmark = pytest.mark.usefixtures("x64")
CHUNK = 4
NETS = {
    1: MemoryNet(D, 1, norm=False),
    2: MemoryNet(D, 2, expansion=2),
}


def build(**options):
    return OmegaRule(D, chunk_len=CHUNK, **options)


def omega_answer(rule, net, problem):
    """What the plain NumPy oracle makes of a problem, in the shape of the two forms."""
    inputs, state, _ = jax.tree.map(np.asarray, problem)
    gates, pairs = inputs.gates, state.pairs
    result = omega_oracle(
        state.weights,
        inputs.queries,
        inputs.keys,
        inputs.values,
        gates["decay"],
        gates["momentum"],
        gates["learning_rate"],
        gates["window"],
        window=rule.window,
        chunk_len=rule.chunk_len,
        clip=rule.clip or None,
        residual=net.residual,
        norm=net.norm,
        read=rule.read,
        velocity=state.velocity,
        anchor=state.anchor,
        pairs=list(map(Pair, pairs.keys, pairs.values, pairs.gates["window"])),
        offset=int(state.chunk_offset),
    )
    # Of no pairs, the shapes are still wanted.
    none = pairs.keys, pairs.values, pairs.gates["window"]
    left = zip(*result.pairs, strict=True) if result.pairs else none
    keys, values, gamma = (jnp.asarray(rows) for rows in left)
    weights, velocity, anchor = (
        tuple(map(jnp.asarray, matrices))
        for matrices in (result.weights, result.velocity, result.anchor)
    )
    return jnp.asarray(result.reads), OmegaState(
        weights=weights,
        velocity=velocity,
        anchor=anchor,
        pairs=MemoryInputs(jnp.zeros_like(keys), keys, values, {"window": gamma}),
        chunk_offset=jnp.asarray(result.offset, jnp.int32),
    )


CASES = [
    (window, depth, read, 1.0)
    for window in (1, 3, 7)  # the last is longer than a chunk
    for depth in NETS
    for read in ("after", "before")
] + [(3, 2, "after", 0.0)]


@pytest.mark.parametrize(("window", "depth", "read", "clip"), CASES)
def test_both_forms_equal_the_oracle(window, depth, read, clip):
    rule, net = build(window=window, read=read, clip=clip), NETS[depth]
    forms = solve_both(rule, net)
    for offset in (0, 1, 3):
        problem = draw_problem(rule, net, 11, chunk_offset=offset)
        expected = omega_answer(rule, net, problem)
        for form in forms:
            assert largest_difference(form(*problem), expected) < 1e-10


@pytest.mark.parametrize("depth", NETS)
def test_a_new_stream_has_no_pairs(depth):
    """What stands in for them at first has no part in the outcome."""
    rule, net = build(window=7), NETS[depth]
    problem = draw_problem(rule, net, 11)
    start = rule.init_state(problem.state.weights)
    inputs = jax.tree.map(np.asarray, problem.inputs)
    gates = (
        inputs.gates[name] for name in ("decay", "momentum", "learning_rate", "window")
    )
    expected = omega_oracle(
        [np.asarray(w) for w in start.weights],
        inputs.queries,
        inputs.keys,
        inputs.values,
        *gates,
        window=7,
        chunk_len=CHUNK,
        clip=rule.clip,
        residual=net.residual,
        norm=net.norm,
    )
    for form in solve_both(rule, net):
        reads, state = form(problem.inputs, start, problem.initial)
        np.testing.assert_allclose(reads, expected.reads, atol=1e-10)
        for w, wanted in zip(state.weights, expected.weights, strict=True):
            np.testing.assert_allclose(w, wanted, atol=1e-10)


SPLIT = {window: build(window=window) for window in (3, 7)}
run_chunks = {w: solve(scan_chunks, rule, NETS[2]) for w, rule in SPLIT.items()}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    window=st.sampled_from([*SPLIT]),
    offset=st.integers(0, CHUNK - 1),
    # Few lengths, since each is compiled: one token, part of a chunk, a chunk, more.
    pieces=st.lists(st.sampled_from([1, 3, 4, 9]), min_size=1, max_size=7),
)
def test_any_pieces_of_a_stream_equal_the_oracle_on_the_whole(window, offset, pieces):
    rule = SPLIT[window]
    problem = draw_problem(rule, NETS[2], sum(pieces), chunk_offset=offset)
    expected = omega_answer(rule, NETS[2], problem)
    actual = solve_in_pieces(run_chunks[window], problem, pieces)
    assert largest_difference(actual, expected) < 1e-10


@pytest.mark.parametrize("read", ["after", "before"])
def test_a_window_of_one_is_the_titans_rule(read):
    rule, net = build(window=1, read=read), NETS[2]
    titans = TitansRule(chunk_len=CHUNK, read=read)
    problem = draw_problem(rule, net, 11, chunk_offset=3)

    def as_titans(state):
        return TitansState(
            weights=state.weights,
            velocity=state.velocity,
            anchor=state.anchor,
            chunk_offset=state.chunk_offset,
        )

    start = as_titans(problem.state)
    for omega_form, titans_form in zip(
        solve_both(rule, net), solve_both(titans, net), strict=True
    ):
        reads, state = omega_form(*problem)
        expected = titans_form(problem.inputs, start, problem.initial)
        assert largest_difference((reads, as_titans(state)), expected) < 1e-12


@pytest.mark.parametrize(
    ("window", "depth"), [(3, 1), pytest.param(7, 2, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("surprise", ["first_order", "full"])
def test_gradients_of_both_forms_agree(window, depth, surprise):
    """By every input, and by every part of the state that came in."""
    outer_gradient = OuterGradient(surprise=surprise)
    rule, net = build(window=window, outer_gradient=outer_gradient), NETS[depth]
    problem = draw_problem(rule, net, 11, chunk_offset=2)
    fast, slow = (gradient_of(form, problem) for form in solve_both(rule, net))
    assert largest_difference(fast, slow) < 1e-9
    unused = {f".initial[{layer}]" for layer in range(depth)}
    unused.add(".state.pairs.queries")
    if surprise == "first_order":
        unused |= {f".state.anchor[{layer}]" for layer in range(depth)}
    assert zero_leaves(fast) == zero_leaves(slow) == unused
    if surprise == "full":
        _assert_slopes_of_the_oracle(rule, net, problem, fast, unused)


def _assert_slopes_of_the_oracle(rule, net, problem, gradient, unused):
    """Central differences, at some numbers of each leaf."""
    leaves, structure = jax.tree.flatten(problem)
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(problem)]
    slopes = {
        jax.tree_util.keystr(p): x for p, x in jax.tree.leaves_with_path(gradient)
    }
    rng = np.random.default_rng(0)

    def total(place, index, move):
        moved = list(leaves)
        moved[place] = moved[place].at[index].add(move)
        answer = omega_answer(rule, net, structure.unflatten(moved))
        return float(sum_of_squares(answer))

    width = 1e-6
    for place, path in enumerate(paths):
        if path not in slopes or path in unused:
            continue
        for index in {tuple(rng.integers(leaves[place].shape)) for _ in range(2)}:
            above, below = (total(place, index, move) for move in (width, -width))
            slope = (above - below) / (2 * width)
            np.testing.assert_allclose(
                slopes[path][index], slope, rtol=1e-5, atol=1e-6, err_msg=path
            )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "net"),
    [
        (build(window=3, loss=HuberLoss()), NETS[1]),  # a gate that stays with a pair
        (build(window=7, read="before"), NETS[1]),
        (OmegaRule(D, window=3, chunk_len=1), NETS[1]),
    ],
    ids=["huber", "before", "chunks of one token"],
)
def test_the_rule_passes_its_check(rule, net):
    check_rule(rule, net)


def test_a_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match="window must be at least 1, got window=0"):
        build(window=0)
    with pytest.raises(ValidationError, match="window"):
        MemoryConfig(rule="omega", window=0)
