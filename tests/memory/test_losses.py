"""Inner losses against their formulas, in both forms of a rule, and from a config."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from pydantic import ValidationError

from tests.memory.problems import D, draw_problem, solve_both
from titans_eqx.config import MemoryConfig, ModelConfig
from titans_eqx.memory import (
    DotProductLoss,
    HuberLoss,
    MemoryInputs,
    MemoryNet,
    NeuralMemory,
    PowerLoss,
    SquaredError,
    TitansRule,
    check_rule,
    scan_chunks,
    scan_tokens,
)

LOSSES = {
    "huber": HuberLoss(),
    "power": PowerLoss(),
    "power 1.5": PowerLoss(1.5),
    "dot": DotProductLoss(),
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def random_rows():
    rng = np.random.default_rng(0)
    outputs, values = rng.normal(size=(2, 40, D))
    values[:3] = outputs[:3]  # no error at all
    return outputs, values


def test_huber_is_the_error_up_to_its_threshold_and_a_sign_beyond(x64):
    outputs, values = random_rows()
    threshold = np.random.default_rng(1).uniform(0.5, 4.0, size=(40, 1))
    expected, n_beyond = [], 0
    for output, value, (delta,) in zip(outputs, values, threshold, strict=True):
        e = output - value
        if np.sqrt(np.sum(e**2) + 1e-6) <= delta:
            expected.append(e)
        else:
            n_beyond += 1
            expected.append(delta * np.tanh(10 * e))
    assert 10 < n_beyond < 30  # both sides are seen
    actual = HuberLoss().gradient(
        jnp.asarray(outputs),
        jnp.asarray(values),
        {"threshold": jnp.asarray(threshold)},
    )
    np.testing.assert_allclose(actual, expected, atol=1e-12)


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0, 4.0])
def test_power_is_p_times_sign_times_power(x64, p):
    outputs, values = random_rows()
    e = outputs - values
    expected = p * np.tanh(10 * e) * np.sqrt(e**2 + 1e-6) ** (p - 1)
    actual = PowerLoss(p).gradient(jnp.asarray(outputs), jnp.asarray(values), {})
    np.testing.assert_allclose(actual, expected, atol=1e-12, rtol=1e-12)
    # Far from zero, smooth and true are the same.
    is_large = np.abs(e) > 2
    true = p * np.sign(e) * np.abs(e) ** (p - 1)
    np.testing.assert_allclose(actual[is_large], true[is_large], rtol=1e-6)


def test_dot_product_is_the_value_whatever_the_memory_answers(x64):
    outputs, values = random_rows()
    actual = DotProductLoss().gradient(jnp.asarray(outputs), jnp.asarray(values), {})
    np.testing.assert_array_equal(actual, -values)


def test_only_huber_has_a_gate():
    (name, spec), *others = HuberLoss(start=0.5, largest=2.0).gate_specs().items()
    assert not others
    assert (name, spec.size, spec.start, spec.high) == ("threshold", 1, 0.5, 2.0)
    for loss in (PowerLoss(), DotProductLoss()):
        assert loss.gate_specs() == {}


@each_loss
def test_errors_of_any_size_leave_a_clipped_memory_finite(loss):
    rule, net = TitansRule(chunk_len=4, loss=loss), MemoryNet(D, 2, expansion=2)
    problem = draw_problem(rule, net, 9)
    inputs = problem.inputs
    values = inputs.values.at[::2].mul(1e20)
    inputs = MemoryInputs(inputs.queries, inputs.keys, values, inputs.gates)
    for form in solve_both(rule, net):
        reads, state = form(inputs, problem.state, problem.initial)
        for array in (reads, *state.weights, *state.velocity):
            assert np.all(np.isfinite(array))


@each_loss
def test_both_forms_agree(x64, loss):
    check_rule(TitansRule(chunk_len=4, loss=loss))


@each_loss
def test_values_may_be_narrower_than_the_weights(loss):
    rule, net = TitansRule(chunk_len=4, loss=loss), MemoryNet(D, 2, expansion=2)
    problem = draw_problem(rule, net, 5)
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), problem.inputs)
    for form in (scan_chunks, scan_tokens):
        with jax.numpy_dtype_promotion("standard"):
            _, state = jax.eval_shape(
                lambda inputs, form=form: form(rule, net, inputs, problem.state), narrow
            )
        assert {w.dtype for w in state.weights} == {jnp.dtype(jnp.float32)}


CONFIGS = {
    "squared": (MemoryConfig(), SquaredError()),
    "huber": (MemoryConfig(loss="huber"), HuberLoss()),
    "power": (MemoryConfig(loss="power"), PowerLoss(3.0)),
    "power 2.5": (MemoryConfig(loss="power", loss_power=2.5), PowerLoss(2.5)),
    "dot": (MemoryConfig(loss="dot"), DotProductLoss()),
}


@pytest.mark.parametrize(("config", "loss"), CONFIGS.values(), ids=CONFIGS.keys())
def test_a_config_names_the_loss(config, loss):
    ModelConfig(memory=config)
    memory = NeuralMemory.from_config(16, config, key=jr.key(0))
    assert isinstance(memory.heads.rule, TitansRule)
    assert memory.heads.rule.loss == loss
    assert ("threshold" in memory.heads.projections.gates.linears) == (
        config.loss == "huber"
    )


DELTA = {"rule": "delta", "depth": 1, "norm": False}
REFUSED = {
    "power without its loss": (
        {"loss": "huber", "loss_power": 2.0},
        r'memory\.loss_power must be left out with model\.memory\.loss = "huber", got',
    ),
    "loss of the delta rule": (
        {**DELTA, "loss": "power"},
        r'loss must be "squared" with model\.memory\.rule = "delta", got "power"',
    ),
}


@pytest.mark.parametrize(("memory", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_combinations_that_mean_nothing_are_refused(memory, message):
    with pytest.raises(ValidationError, match=message):
        ModelConfig(memory=MemoryConfig(**memory))


@pytest.mark.parametrize("power", [1.0, 4.5])
def test_powers_out_of_range_are_refused(power):
    with pytest.raises(ValidationError, match="loss_power"):
        MemoryConfig(loss="power", loss_power=power)
