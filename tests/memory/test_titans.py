"""The fast form is the rule: equal to the definition and an oracle, in any pieces."""

import equinox as eqx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.memory.outside import SkipNet
from tests.memory.problems import (
    D,
    draw_problem,
    gradient_of,
    largest_difference,
    solve,
    solve_both,
    solve_in_pieces,
    titans_answer,
    zero_leaves,
)
from titans_eqx.memory import MemoryNet, OuterGradient, TitansRule, scan_chunks
from titans_eqx.memory.scan import scan_aligned
from titans_eqx.nn.padding import Padding

# Every pair of values of the three options meets in one of these.
OPTIONS = {
    "plain": {"clip": 0.0},
    "clipped, pulled back": {"clip": 0.5, "decay_towards": "initial"},
    "clipped, read before": {"clip": 0.5, "read": "before"},
    "pulled back, read before": {
        "clip": 0.0,
        "decay_towards": "initial",
        "read": "before",
    },
}
NETS = {depth: MemoryNet(D, depth, expansion=2) for depth in (1, 2, 3)}
# Chunk length: tokens of the stream, and the offsets at which it starts. Chunks are
# crossed and left unfinished.
STREAMS = {1: (5, (0,)), 8: (19, (0, 3, 7)), 64: (70, (0, 40))}
CASES = [
    (depth, chunk_len, options)
    for depth in NETS
    for chunk_len in STREAMS
    for options in ("plain", "clipped, pulled back")
] + [(2, 8, options) for options in OPTIONS if options.endswith("before")]


@pytest.mark.parametrize(("depth", "chunk_len", "options"), CASES)
def test_both_forms_equal_the_oracle(x64, depth, chunk_len, options):
    net, rule = NETS[depth], TitansRule(chunk_len=chunk_len, **OPTIONS[options])
    n_tokens, offsets = STREAMS[chunk_len]
    forms = solve_both(rule, net)
    for offset in offsets:
        problem = draw_problem(rule, net, n_tokens, chunk_offset=offset)
        expected = titans_answer(rule, net, problem)
        for form in forms:
            assert largest_difference(form(*problem), expected) < 1e-10


@pytest.mark.parametrize("options", OPTIONS)
def test_channel_wise_decay_equals_the_oracle(x64, options):
    for depth, chunk_len, n_tokens, offset in (
        (1, 8, 19, 3),
        (2, 8, 19, 7),
        (2, 4, 8, 0),
    ):
        net = NETS[depth]
        rule = TitansRule(chunk_len=chunk_len, decay="channel", **OPTIONS[options])
        problem = draw_problem(rule, net, n_tokens, chunk_offset=offset)
        expected = titans_answer(rule, net, problem)
        for form in solve_both(rule, net):
            assert largest_difference(form(*problem), expected) < 1e-10


SWITCHED_OFF = {
    "no momentum": {"use_momentum": False},
    "no decay": {"decay": "none"},
    "neither": {"use_momentum": False, "decay": "none"},
    "no momentum, channel-wise": {"use_momentum": False, "decay": "channel"},
}


@pytest.mark.parametrize("read", ["after", "before"])
@pytest.mark.parametrize("options", SWITCHED_OFF.values(), ids=SWITCHED_OFF.keys())
def test_a_gate_that_is_switched_off_is_zero(x64, options, read):
    net = NETS[2]
    rule = TitansRule(chunk_len=8, clip=0.5, read=read, **options)
    missing = {
        name
        for name, is_missing in (
            ("momentum", "use_momentum" in options),
            ("decay", options.get("decay") == "none"),
        )
        if is_missing
    }
    problem = draw_problem(rule, net, 19, chunk_offset=3)
    assert {"decay", "momentum", "learning_rate"} - missing == set(problem.inputs.gates)
    expected = titans_answer(rule, net, problem)
    for form in solve_both(rule, net):
        assert largest_difference(form(*problem), expected) < 1e-10


WRAPPERS = [(True, False), (False, True), (False, False)]


@pytest.mark.parametrize(("residual", "norm"), WRAPPERS)
def test_a_network_without_wrappers_equals_the_oracle(x64, residual, norm):
    net = MemoryNet(D, 2, expansion=2, residual=residual, norm=norm)
    rule = TitansRule(chunk_len=8, clip=0.5)
    problem = draw_problem(rule, net, 19, chunk_offset=3)
    expected = titans_answer(rule, net, problem)
    for form in solve_both(rule, net):
        assert largest_difference(form(*problem), expected) < 1e-10


CHUNK = 8
PULLED_BACK = TitansRule(chunk_len=CHUNK, **OPTIONS["clipped, pulled back"])
run_pulled_back = solve(scan_chunks, PULLED_BACK, NETS[2])


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    offset=st.integers(0, CHUNK - 1),
    # Few lengths, since each is compiled: one token, part of a chunk, a chunk, more.
    pieces=st.lists(st.sampled_from([1, 3, 8, 11]), min_size=1, max_size=7),
)
def test_any_pieces_of_a_stream_equal_the_oracle_on_the_whole(x64, offset, pieces):
    problem = draw_problem(PULLED_BACK, NETS[2], sum(pieces), chunk_offset=offset)
    expected = titans_answer(PULLED_BACK, NETS[2], problem)
    actual = solve_in_pieces(run_pulled_back, problem, pieces)
    assert largest_difference(actual, expected) < 1e-10


@pytest.mark.parametrize("n_tokens", [5, 16, 21])
def test_a_stream_known_to_start_a_chunk_equals_the_oracle(x64, n_tokens):
    net = NETS[2]
    rule = TitansRule(chunk_len=CHUNK, **OPTIONS["clipped, read before"])
    problem = draw_problem(rule, net, n_tokens)
    aligned = eqx.filter_jit(
        lambda problem: scan_aligned(
            rule, net, problem.inputs, problem.state, Padding.none(n_tokens)
        )
    )
    expected = titans_answer(rule, net, problem)
    assert largest_difference(aligned(problem), expected) < 1e-10


@pytest.mark.parametrize("decay", ["scalar", "channel"])
def test_gates_of_exactly_one_and_zero_equal_the_oracle(x64, decay):
    """A decay of 1 forgets everything, a momentum of 0 carries nothing on."""
    net, rule = NETS[2], TitansRule(chunk_len=CHUNK, clip=0.0, decay=decay)
    forms = solve_both(rule, net)
    problem = draw_problem(rule, net, 19, chunk_offset=3)
    for tokens in (slice(None), slice(4, 7), slice(12, None, 3)):
        inputs = eqx.tree_at(
            lambda x: (x.gates["decay"], x.gates["momentum"]),
            problem.inputs,
            (
                problem.inputs.gates["decay"].at[tokens].set(1.0),
                problem.inputs.gates["momentum"].at[tokens].set(0.0),
            ),
        )
        extreme = problem._replace(inputs=inputs)
        expected = titans_answer(rule, net, extreme)
        for form in forms:
            assert largest_difference(form(*extreme), expected) < 1e-10


OUTER_GRADIENTS = {
    "first order": OuterGradient(surprise="first_order"),
    "full": OuterGradient(surprise="full"),
    "full, truncated": OuterGradient(surprise="full", truncate_every=1),
}


@pytest.mark.parametrize(
    "outer_gradient", OUTER_GRADIENTS.values(), ids=OUTER_GRADIENTS.keys()
)
def test_gradients_of_both_forms_agree(x64, outer_gradient):
    """By every input, by M_0 and by every part of the state that came in."""
    net = NETS[2]
    rule = TitansRule(
        chunk_len=CHUNK,
        clip=0.5,
        decay_towards="initial",
        outer_gradient=outer_gradient,
    )
    problem = draw_problem(rule, net, 19, chunk_offset=3)
    fast, slow = (gradient_of(form, problem) for form in solve_both(rule, net))
    assert largest_difference(fast, slow) < 1e-9
    # The anchor is only where surprises are taken, which first order does not see.
    is_full = outer_gradient.surprise == "full"
    anchors = set() if is_full else {".state.anchor[0]", ".state.anchor[1]"}
    assert zero_leaves(fast) == zero_leaves(slow) == anchors


def test_a_new_network_gets_the_chunked_form_for_free(x64):
    net = SkipNet()
    problem = draw_problem(PULLED_BACK, net, 19, chunk_offset=3)
    fast, slow = solve_both(PULLED_BACK, net)
    assert largest_difference(fast(*problem), slow(*problem)) < 1e-10


def test_a_missing_initial_memory_is_refused():
    problem = draw_problem(PULLED_BACK, NETS[2], 3)
    with pytest.raises(ValueError, match=r"needs the initial weights M_0, got\s+init"):
        scan_chunks(PULLED_BACK, NETS[2], problem.inputs, problem.state)


def test_a_token_reads_its_own_write_or_does_not(x64):
    """Before its own write, the first token of a stream reads what is there."""
    net = NETS[2]
    rule = TitansRule(chunk_len=4, read="before")
    problem = draw_problem(rule, net, 1)
    expected = net(problem.state.weights, problem.inputs.queries)
    for form in solve_both(rule, net):
        reads, state = form(*problem)
        np.testing.assert_allclose(reads, expected, atol=1e-12)
        assert largest_difference(state.weights, problem.state.weights) > 1e-3
