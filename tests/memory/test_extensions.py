"""A rule, a network and a loss from outside work wherever ours do."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.memory.outside import GatedNet, HebbianRule, HuberLoss
from tests.memory.problems import (
    D,
    draw_problem,
    largest_difference,
    solve_both,
    stream_difference,
    zero_leaves,
)
from titans_eqx.memory import MemoryInputs, MemoryNet, NeuralMemory, TitansRule

D_MODEL, CHUNK = 8, 4
LINEAR = MemoryNet(D, 1, norm=False)
DEEP = MemoryNet(D, 2, expansion=2)
EXTENSIONS = {
    "rule": (HebbianRule(chunk_len=CHUNK), LINEAR),
    "network": (TitansRule(chunk_len=CHUNK), GatedNet()),
    "loss": (TitansRule(chunk_len=CHUNK, loss=HuberLoss()), DEEP),
}
each_extension = pytest.mark.parametrize(
    ("rule", "net"), EXTENSIONS.values(), ids=EXTENSIONS.keys()
)


@each_extension
def test_both_forms_agree_in_the_middle_of_a_stream(x64, rule, net):
    problem = draw_problem(rule, net, 11, chunk_offset=3)
    fast, slow = solve_both(rule, net)
    assert largest_difference(fast(*problem), slow(*problem)) < 1e-10


def test_the_rule_is_what_it_says(x64):
    rule, net = EXTENSIONS["rule"]
    problem = draw_problem(rule, net, 6, chunk_offset=3)
    q, k, v = (
        np.asarray(x)
        for x in (problem.inputs.queries, problem.inputs.keys, problem.inputs.values)
    )
    forget, write = (np.asarray(problem.inputs.gates[n]) for n in ("forget", "write"))
    m, expected = np.asarray(problem.state.weights[0]), []
    for t in range(6):
        m = (1 - forget[t]) * m + write[t] * np.outer(k[t], v[t])
        expected.append(q[t] + q[t] @ m)
    for form in solve_both(rule, net):
        reads, state = form(*problem)
        np.testing.assert_allclose(reads, expected, atol=1e-12)
        np.testing.assert_allclose(state.weights[0], m, atol=1e-12)


def test_a_threshold_beyond_all_errors_is_no_threshold(x64):
    rule, net = EXTENSIONS["loss"]
    squared = TitansRule(chunk_len=CHUNK)
    problem = draw_problem(rule, net, 11, chunk_offset=3)
    inputs = problem.inputs

    def answers(rule, threshold):
        gates = inputs.gates | {"threshold": jnp.full((11, 1), threshold)}
        inputs_now = MemoryInputs(inputs.queries, inputs.keys, inputs.values, gates)
        return [
            form(inputs_now, problem.state, problem.initial)
            for form in solve_both(rule, net)
        ]

    for far, low, plain in zip(
        answers(rule, 1e9), answers(rule, 0.1), answers(squared, 1.0), strict=True
    ):
        assert largest_difference(far, plain) == 0
        assert largest_difference(low, plain) > 1e-3


def build(rule, net):
    return NeuralMemory(D_MODEL, n_heads=2, net=net, rule=rule, key=jr.key(0))


@each_extension
def test_the_layer_reads_pieces_and_steps_like_the_sequence(x64, rule, net):
    memory, x = build(rule, net), jr.normal(jr.key(1), (11, D_MODEL))
    assert stream_difference(memory, x) < 1e-10


@pytest.mark.slow
@each_extension
def test_the_layer_trains_its_gates(rule, net):
    memory, x = build(rule, net), jr.normal(jr.key(1), (11, D_MODEL))
    gradient = eqx.filter_jit(eqx.filter_grad(lambda m, x: jnp.sum(m(x)[0] ** 2)))(
        memory, x
    )
    linears = gradient.heads.projections.gates.linears
    assert linears.keys() == rule.gate_specs(net).keys()
    assert zero_leaves(linears) == set()
    frozen = zero_leaves(gradient)
    assert len(frozen) == len(net.shapes)
    assert all(path.startswith(".heads.initial_weights") for path in frozen)


@each_extension
def test_the_layer_can_be_watched(rule, net):
    memory = build(rule, net)
    probe = eqx.filter_jit(NeuralMemory.probe)
    stats = probe(memory, jnp.ones(D_MODEL), memory.init_state())
    assert {name: gate.shape for name, gate in stats.gates.items()} == {
        name: (2, spec.size) for name, spec in rule.gate_specs(net).items()
    }
    assert np.all(np.asarray(stats.surprise) > 0)


@pytest.mark.parametrize("net", [MemoryNet(D_MODEL), GatedNet(d=3)], ids=["ours", "1"])
def test_a_network_of_another_width_is_refused(net):
    expected = r"must map d_model / n_heads = 4 features to as\s+many, got \w+Net\("
    with pytest.raises(ValueError, match=expected):
        build(TitansRule(), net)
