import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from titans_eqx.sharding.mesh import build_mesh
from titans_eqx.training.spikes import SpikeStatistics
from titans_eqx.training.state import init_train_state
from titans_eqx.training.step import build_train_step

SIGMAS, WINDOW = 3.0, 5


def weighted_statistics(values, window):
    """Mean and variance with every step's weight written out."""
    weights = np.zeros(0)
    for n in range(1, len(values) + 1):
        weight = 1 / min(n, window)
        weights = np.append((1 - weight) * weights, weight)
    mean = weights @ values
    return mean, weights @ (values - mean) ** 2


def taken_in(values):
    """Statistics of values that are no spikes."""
    add = jax.jit(lambda s, x, f: s.add(x, f, 1e6, WINDOW))
    statistics = SpikeStatistics.init()
    for value in values:
        is_finite = jnp.asarray(bool(np.isfinite(value).all()))
        statistics = add(statistics, jnp.asarray(value), is_finite)
    return statistics


@pytest.mark.parametrize("n", [1, 4, 5, 12])
@pytest.mark.usefixtures("x64")
def test_statistics_are_those_of_all_steps_then_of_the_latest(n):
    values = np.random.default_rng(0).normal(size=(n, 2)) + 7
    statistics = taken_in(values)
    mean, variance = weighted_statistics(values, WINDOW)
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(statistics.variance, variance, rtol=1e-9, atol=1e-12)
    assert statistics.n_seen == n


def test_steps_that_are_not_finite_do_not_count():
    values = np.random.default_rng(1).normal(size=(9, 2)).astype(np.float32)
    spoilt = np.insert(values, 4, np.nan, axis=0)
    for one, other in zip(
        jax.tree.leaves(taken_in(spoilt)),
        jax.tree.leaves(taken_in(values)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


class Line(eqx.Module):
    slope: jax.Array


def squared_error(model, batch):
    error = model.slope * batch["inputs"] - batch["targets"]
    return jnp.sum(error**2), jnp.sum(jnp.ones_like(error))


def batch_of(seed, scale=1.0):
    draw = np.random.default_rng(seed).normal
    inputs = draw(size=8).astype(np.float32)
    targets = inputs + 0.1 * draw(size=8).astype(np.float32)
    return {"inputs": jnp.asarray(inputs), "targets": jnp.asarray(scale * targets)}


def run(batches, spike_sigmas):
    """State and metrics after each step."""
    optimizer = optax.adam(1e-3)
    state, static = init_train_state(Line(jnp.ones(())), optimizer)
    step = build_train_step(
        optimizer,
        static,
        build_mesh(8, data=1),
        squared_error,
        spike_sigmas=spike_sigmas,
        spike_window=WINDOW,
    )
    states, metrics = [], []
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and reals
        for batch in batches:
            state, one = step(state, batch)
            states.append(jax.tree.map(np.array, state))
            metrics.append(one)
    return states, metrics


def slopes(states):
    return [float(state.parameters.slope) for state in states]


def test_a_spike_changes_nothing_and_is_counted():
    quiet = [batch_of(seed) for seed in range(12)]
    batches = [*quiet[:8], batch_of(99, scale=100.0), *quiet[8:]]
    states, metrics = run(batches, SIGMAS)
    assert [int(one.spikes) for one in metrics] == [0] * 8 + [1] * 5
    assert metrics[8].loss > 100 * metrics[7].loss
    assert int(states[-1].skipped) == 0
    # As if the spike had not been there.
    expected, _ = run(quiet, 0.0)
    assert slopes(states[:8]) == slopes(expected[:8])
    assert slopes(states[8:]) == slopes(expected[7:])


def test_off_takes_every_step_and_gathers_nothing():
    states, metrics = run([batch_of(1), *[batch_of(2, 100.0)] * 8], 0.0)
    assert metrics[-1].spikes == 0
    assert len(set(slopes(states))) == 9
    assert states[-1].statistics.n_seen == 0


def test_a_level_that_stays_higher_is_accepted():
    batches = [batch_of(seed) for seed in range(8)] + [batch_of(5, 3.0)] * 60
    _, metrics = run(batches, SIGMAS)
    left_out = [int(one.spikes) for one in metrics]
    assert 1 <= left_out[-1] < 40
    assert left_out[-1] == left_out[-10]
