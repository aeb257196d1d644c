"""What is done once for all rules: padding, places of chunks, missing gates."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.memory.outside import HebbianRule
from tests.memory.problems import (
    D,
    Problem,
    assert_identical,
    draw_problem,
    gradient_of,
    largest_difference,
    random_inputs,
)
from tests.sharding.devices import over_devices
from titans_eqx.memory import (
    DeltaRule,
    MemoryInputs,
    MemoryNet,
    NeuralMemory,
    OuterGradient,
    ReadOnlyRule,
    TitansRule,
    ahead,
    scan_chunks,
    scan_tokens,
)
from titans_eqx.memory.blocks import scan_documents
from titans_eqx.memory.scan import scan_aligned, step_heads
from titans_eqx.nn.documents import Documents
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


def test_a_gate_of_another_size_is_refused():
    for name, wanted, found in (("titans", 2, 1), ("delta", 1, 2)):
        rule, net = RULES[name]
        message = f"needs {wanted} values of the gate decay at each token, got {found}"
        inputs, state, initial = draw_problem(rule, net, 3)
        gates = {**inputs.gates, "decay": jnp.full((3, found), 0.1)}
        inputs = MemoryInputs(inputs.queries, inputs.keys, inputs.values, gates)
        for form in (scan_tokens, scan_chunks):
            with pytest.raises(ValueError, match=message):
                form(rule, net, inputs, state, initial=initial)


@pytest.mark.parametrize("block_len", [0, 3, 16])
def test_blocks_that_do_not_fill_a_chunk_are_refused(block_len):
    rule, net = RULES["titans"]
    message = f"block_len must divide .*, got block_len={block_len} and chunk_len=8"
    inputs, state, initial = draw_problem(rule, net, 3)
    with pytest.raises(ValueError, match=message):
        scan_chunks(rule, net, inputs, state, initial=initial, block_len=block_len)
    with pytest.raises(ValueError, match=message):
        NeuralMemory(
            D, n_heads=1, net=net, rule=rule, block_len=block_len, key=jax.random.key(0)
        )


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


@pytest.mark.parametrize(
    ("name", "form"),
    [
        pytest.param("titans", "whole chunks", marks=pytest.mark.slow),
        ("titans", "blocks"),
        ("titans", "documents"),
        pytest.param("titans, channel-wise", "whole chunks", marks=pytest.mark.slow),
        ("delta", "whole chunks"),
        ("delta", "documents"),
    ],
)
def test_a_chunk_prepared_ahead_is_one_prepared_in_its_turn(
    monkeypatch, x64, name, form
):
    """Reads, states and gradients."""
    rule, net = RULES[name]
    n_tokens = 3 * CHUNK + 2
    problem = draw_problem(rule, net, n_tokens, chunk_offset=3 * (form == "blocks"))
    documents = Documents(jnp.asarray([5]), n_tokens)
    outcomes, outside = [], []
    for is_ahead in (False, True):
        monkeypatch.setattr(ahead, "prepares_ahead", lambda is_it=is_ahead: is_it)

        def loss(problem):  # another function for each, or jax would not trace it again
            inputs, state, initial = problem
            if form == "whole chunks":
                padding = Padding.none(n_tokens)
                out = scan_aligned(rule, net, inputs, state, padding, initial=initial)
            elif form == "blocks":
                out = scan_chunks(rule, net, inputs, state, initial=initial)
            else:
                fresh = rule.init_state(initial)
                rest = fresh, documents, documents.layout(CHUNK, jnp.asarray(0))
                out = scan_documents(rule, net, inputs, state, *rest, initial=initial)
            leaves = [x for x in jax.tree.leaves(out) if eqx.is_inexact_array(x)]
            return sum(jnp.sum(jnp.sin(x)) for x in leaves), out

        # In its turn, a chunk is prepared within the loop.
        outside.append(len(jax.make_jaxpr(loss)(problem).eqns))
        outcomes.append(eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))(problem))
    if name != "titans, channel-wise":
        assert outside[0] < outside[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), *outcomes)


def test_a_chunk_of_its_own_is_not_passed_over(monkeypatch, x64):
    class Doubled(DeltaRule):
        def chunk(self, *args):
            reads, state = super().chunk(*args)
            return 2 * reads, state

    monkeypatch.setattr(ahead, "prepares_ahead", lambda: True)
    problem = draw_problem(DeltaRule(chunk_len=CHUNK), LINEAR, 2 * CHUNK)
    run = eqx.filter_jit(scan_chunks)
    single, double = (
        run(rule(chunk_len=CHUNK), LINEAR, problem.inputs, problem.state)[0]
        for rule in (DeltaRule, Doubled)
    )
    np.testing.assert_allclose(double, 2 * single, rtol=1e-12)


CUT = OuterGradient(truncate_every=1)
STEPPED = {
    "titans": RULES["titans"],
    "titans, cut at chunks": (TitansRule(chunk_len=CHUNK, outer_gradient=CUT), DEEP),
    "delta": RULES["delta"],
    "from outside": RULES["from outside"],
    "chunks of one token": (HebbianRule(chunk_len=1), LINEAR),
}


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "net"), STEPPED.values(), ids=STEPPED.keys())
def test_heads_side_by_side_step_as_each_does_alone(x64, rule, net):
    """Over the end of a chunk, in reads, states and gradients."""
    problem = draw_problem(rule, net, 4, chunk_offset=max(0, rule.chunk_len - 2))
    heads = jax.tree.map(
        lambda x: jnp.stack([x, x / 2 if eqx.is_inexact_array(x) else x]), problem
    )

    def alone(*heads):
        return jax.vmap(
            lambda inputs, state, initial: scan_tokens(
                rule, net, inputs, state, initial=initial
            )
        )(*heads)

    def side_by_side(inputs, state, initial):
        def body(state, tokens):
            reads, state = step_heads(rule, net, tokens, state, initial=initial)
            return state, reads

        tokens = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), inputs)
        state, reads = jax.lax.scan(body, state, tokens)
        return jnp.swapaxes(reads, 0, 1), state

    heads = Problem(*heads)
    answers = [jax.jit(form)(*heads) for form in (alone, side_by_side)]
    assert largest_difference(*answers) < 1e-12
    slopes = [gradient_of(form, heads) for form in (alone, side_by_side)]
    assert largest_difference(*slopes) < 1e-10


def test_a_fresh_memory_steps_on_each_device_by_itself(x64):
    """The surprise, a gradient by weights that differ nowhere yet, is not summed."""
    rule, net = RULES["delta"]
    problem = draw_problem(rule, net, jax.device_count())
    state, initial = jax.tree.map(lambda x: x[None], (problem.state, problem.initial))

    def one_token(tokens):
        reads, after = step_heads(rule, net, tokens, state, initial=initial)
        return reads, after.weights

    actual = over_devices(one_token, problem.inputs)
    rows = jax.tree.map(lambda x: x[:, None], problem.inputs)
    expected = jax.jit(jax.vmap(one_token))(rows)
    expected = jax.tree.map(lambda x: x[:, 0], expected)
    assert largest_difference(actual, expected) < 1e-12
