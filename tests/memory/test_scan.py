"""What is done once for all rules: padding, places of chunks, missing gates."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from tests.memory.outside import HebbianRule
from tests.memory.problems import D, assert_identical, draw_problem, random_inputs
from titans_eqx.memory import (
    DeltaRule,
    MemoryInputs,
    MemoryNet,
    ReadOnlyRule,
    TitansRule,
    scan_chunks,
    scan_tokens,
)
from titans_eqx.memory.scan import scan_aligned
from titans_eqx.nn.padding import Padding

CHUNK = 8
DEEP = MemoryNet(D, 2, expansion=2)
LINEAR = MemoryNet(D, 1, norm=False)
RULES = {
    "titans": (
        TitansRule(chunk_len=CHUNK, clip=0.5, decay_towards="initial"),
        DEEP,
    ),
    "titans, channel-wise": (TitansRule(chunk_len=CHUNK, decay="channel"), DEEP),
    "titans, no momentum": (
        TitansRule(chunk_len=CHUNK, decay="none", use_momentum=False),
        DEEP,
    ),
    "delta": (DeltaRule(chunk_len=CHUNK), LINEAR),
    "delta, no momentum": (
        DeltaRule(chunk_len=CHUNK, use_decay=False, use_momentum=False),
        LINEAR,
    ),
    "switched off": (ReadOnlyRule(TitansRule(chunk_len=CHUNK)), DEEP),
    "from outside": (HebbianRule(chunk_len=CHUNK), LINEAR),
}


@pytest.mark.parametrize(("rule", "net"), RULES.values(), ids=RULES.keys())
def test_padding_is_an_exact_no_op(rule, net):
    problem = draw_problem(rule, net, 4 * CHUNK, chunk_offset=3)
    problem = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, problem
    )

    @eqx.filter_jit
    def run(inputs, start, stop):
        padding = Padding(start, stop, 4 * CHUNK, is_none=False)
        return scan_aligned(
            rule, net, inputs, problem.state, padding, initial=problem.initial
        )

    def at(position: int):
        return jnp.asarray(position, jnp.int32)

    # No real position at all: nothing moves, wherever the empty part lies.
    for position in (3, 20):
        _, state = run(problem.inputs, at(position), at(position))
        assert_identical(state, problem.state)

    # Some real positions: what lies in the others cannot be told from the outcome.
    start, stop = at(3), at(13)
    is_real = (jnp.arange(4 * CHUNK) >= start) & (jnp.arange(4 * CHUNK) < stop)
    garbage = jax.tree.map(
        lambda x: jnp.where(is_real[:, None], x, 1e3 * x**2), problem.inputs
    )
    reads, state = run(problem.inputs, start, stop)
    reads_beside_garbage, state_beside_garbage = run(garbage, start, stop)
    assert_identical(state, state_beside_garbage)
    assert_identical(reads[3:13], reads_beside_garbage[3:13])


@pytest.mark.parametrize("name", ["titans", "delta", "from outside"])
def test_a_missing_gate_is_refused(name):
    rule, net = RULES[name]
    problem = draw_problem(rule, net, 3)
    inputs = problem.inputs
    for missing in inputs.gates:
        gates = {name: gate for name, gate in inputs.gates.items() if name != missing}
        without = MemoryInputs(inputs.queries, inputs.keys, inputs.values, gates)
        for form in (scan_tokens, scan_chunks):
            with pytest.raises(ValueError, match=f": {missing} is missing. Add it to"):
                form(rule, net, without, problem.state, initial=problem.initial)


def test_all_missing_gates_are_named():
    rule, net = RULES["titans"]
    inputs = random_inputs(rule, net, 3)
    without = MemoryInputs(inputs.queries, inputs.keys, inputs.values, {})
    state = draw_problem(rule, net, 3).state
    expected = "needs the gates decay, learning_rate, momentum, got none: decay, learn"
    with pytest.raises(ValueError, match=expected):
        scan_tokens(rule, net, without, state)


@pytest.mark.parametrize("name", ["titans", "delta"])
def test_gates_of_other_rules_are_ignored(name):
    rule, net = RULES[name]
    problem = draw_problem(rule, net, 3)
    inputs = problem.inputs
    gates = inputs.gates | {"other": jnp.full((3, 2), jnp.nan)}
    more = MemoryInputs(inputs.queries, inputs.keys, inputs.values, gates)
    for form in (scan_tokens, scan_chunks):
        run = eqx.filter_jit(form)
        assert_identical(
            run(rule, net, more, problem.state, initial=problem.initial),
            run(rule, net, inputs, problem.state, initial=problem.initial),
        )
