import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.memory.outside import HuberLoss
from tests.oracles.blocks import sigmoid
from titans_eqx.memory import (
    DeltaRule,
    GateSpec,
    MemoryNet,
    ReadOnlyRule,
    TitansRule,
)
from titans_eqx.memory.gates import Gates

D_MODEL, N_HEADS = 16, 2
NET = MemoryNet(8, 3, 4)
LINEAR = MemoryNet(8, 1, norm=False)
DEPTH, N_ROWS = 3, 8 + 32 + 32  # memory layers; rows of the weights of all of them


def build(*, is_shared=False, **options):
    rule = TitansRule(max_learning_rate=0.2, **options)
    return Gates(
        D_MODEL, N_HEADS, rule.gate_specs(NET), is_shared=is_shared, key=jr.key(0)
    )


def gates_at_random_tokens(**options):
    gates = jax.vmap(build(**options))(jr.normal(jr.key(1), (50, D_MODEL)))
    return {name: np.asarray(gate) for name, gate in gates.items()}


def test_gates_start_where_the_design_says():
    gates = gates_at_random_tokens()
    assert gates.keys() == {"decay", "momentum", "learning_rate"}
    for gate in gates.values():
        assert gate.shape == (50, N_HEADS, DEPTH)
        assert np.all(np.std(gate, axis=0) > 0), "every gate depends on the token"
    decay, momentum, rate = (gates[k] for k in ("decay", "momentum", "learning_rate"))
    assert np.all((decay > 0.005) & (decay < 0.02))
    assert np.all((momentum > 0.05) & (momentum < 0.5))
    assert np.all((rate > 0.05) & (rate < 0.15))


def test_decay_starts_where_the_rule_says():
    decay = gates_at_random_tokens(decay_start=1e-4)["decay"]
    assert np.all((decay > 0.5e-4) & (decay < 2e-4))


def test_decay_starts_are_spread_over_the_heads_evenly_in_the_logarithm():
    rule = TitansRule(decay_start=(1e-4, 1e-1))
    gates = Gates(D_MODEL, 4, rule.gate_specs(NET), key=jr.key(0))
    decay = gates(jnp.zeros(D_MODEL))["decay"]
    expected = np.array([1e-4, 1e-3, 1e-2, 1e-1])
    np.testing.assert_allclose(decay, np.repeat(expected[:, None], DEPTH, 1), rtol=1e-5)


def test_a_single_head_starts_with_the_first_of_the_range():
    assert GateSpec(size=1, start=(1e-4, 1e-1)).starts(1).tolist() == [1e-4]


def test_a_gate_per_head_is_shared_by_the_layers_of_its_memory():
    for gate in gates_at_random_tokens(is_shared=True).values():
        assert gate.shape == (50, N_HEADS, DEPTH)
        np.testing.assert_array_equal(gate[..., 0], gate[..., -1])
        assert np.any(gate[:, 0] != gate[:, 1])


def test_channel_wise_decay_has_a_value_for_each_row_of_the_weights():
    gates = gates_at_random_tokens(decay="channel")
    decay = gates["decay"]
    assert decay.shape == (50, N_HEADS, N_ROWS)
    assert gates["momentum"].shape == (50, N_HEADS, DEPTH)
    assert np.all((decay > 0.005) & (decay < 0.02))
    assert np.all(np.std(decay, axis=-1) > 0)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"decay": "none"}, "decay"), ({"use_momentum": False}, "momentum")],
    ids=["decay", "momentum"],
)
def test_a_gate_that_is_switched_off_does_not_exist(options, name):
    """That the rule takes it as exactly zero is held to the oracle elsewhere."""
    gates = gates_at_random_tokens(**options)
    assert gates.keys() == {"decay", "momentum", "learning_rate"} - {name}


def test_gates_are_wide_in_half_precision():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), build())
    gates = half(jnp.ones(D_MODEL, jnp.bfloat16))
    assert {x.dtype for x in gates.values()} == {jnp.dtype("float32")}


def test_a_gate_is_a_scaled_sigmoid_of_a_linear_map(x64):
    spec = GateSpec(size=3, start=0.5, high=2.0)
    gates = Gates(D_MODEL, N_HEADS, {"any": spec}, key=jr.key(0))
    linear = gates.linears["any"]
    x = np.random.default_rng(0).normal(size=D_MODEL)
    logits = np.asarray(linear.weight) @ x + np.asarray(linear.bias)
    expected = 2.0 * sigmoid(logits).reshape(N_HEADS, 3)
    np.testing.assert_allclose(gates(jnp.asarray(x))["any"], expected, atol=1e-12)
    at_zero = gates(jnp.zeros(D_MODEL))["any"]
    np.testing.assert_allclose(at_zero, 0.5, atol=1e-12)


def sizes(specs):
    return {name: spec.size for name, spec in specs.items()}


def test_rules_say_which_gates_they_want():
    titans = TitansRule(max_learning_rate=0.2)
    assert sizes(titans.gate_specs(NET)) == {
        "decay": DEPTH,
        "momentum": DEPTH,
        "learning_rate": DEPTH,
    }
    assert ReadOnlyRule(titans).gate_specs(NET) == titans.gate_specs(NET)
    assert sizes(DeltaRule().gate_specs(LINEAR)) == {
        "decay": 1,
        "momentum": 1,
        "learning_rate": 1,
    }
    bare = DeltaRule(use_decay=False, use_momentum=False)
    assert sizes(bare.gate_specs(LINEAR)) == {"learning_rate": 1}
    huber = TitansRule(loss=HuberLoss()).gate_specs(NET)
    assert huber["threshold"] == HuberLoss().gate_specs()["threshold"]
    assert huber.keys() == titans.gate_specs(NET).keys() | {"threshold"}


@pytest.mark.parametrize(
    ("rule", "net"),
    [(TitansRule(max_learning_rate=0.2), NET), (DeltaRule(), LINEAR)],
    ids=["titans", "delta"],
)
def test_gates_at_padding_write_and_forget_nothing(rule, net):
    specs = rule.gate_specs(net)
    assert specs["learning_rate"].neutral == 0
    assert specs["decay"].neutral == 0
    assert specs["momentum"].neutral == 1
    assert specs["learning_rate"].start == specs["learning_rate"].high / 2
    assert specs["decay"].high == 1


def test_momentum_of_the_delta_rule_ends_where_it_would_overshoot():
    assert TitansRule().gate_specs(NET)["momentum"].high == 1
    for largest in (0.1, 1.0):
        specs = DeltaRule(max_learning_rate=largest).gate_specs(LINEAR)
        np.testing.assert_allclose(largest / (1 - specs["momentum"].high), 2)


@pytest.mark.parametrize(
    ("start", "high"), [(0.0, 1.0), (1.0, 1.0), (0.1, 0.0), ((0.1, 1.0), 1.0)]
)
def test_a_gate_that_cannot_start_where_it_should_is_refused(start, high):
    with pytest.raises(ValueError, match=r"must start inside its range \(0, "):
        GateSpec(size=1, start=start, high=high)


BAD_OPTIONS = {
    "chunk_len": lambda: TitansRule(chunk_len=0),
    "max_learning_rate": lambda: TitansRule(max_learning_rate=0.0).gate_specs(NET),
}


@pytest.mark.parametrize("build", BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_options_out_of_range_are_refused(build):
    with pytest.raises(ValueError, match="must (be at least 1|start inside)"):
        build()


@pytest.mark.parametrize("rows", [(), (3,)])
def test_a_rule_may_want_no_gates(rows):
    gates = Gates(D_MODEL, N_HEADS, {}, key=jr.key(0))
    assert gates(jnp.zeros((*rows, D_MODEL))) == {}
