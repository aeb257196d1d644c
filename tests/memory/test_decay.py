import jax
import jax.numpy as jnp
import numpy as np

from titans_eqx.memory import decay as module
from titans_eqx.memory.decay import lower_products

chunk_decay = jax.jit(module.chunk_decay)

B = 6


def by_hand(decay, momentum):
    """Every factor as the sum of products that the module's docstring writes out."""
    keep = 1 - decay

    def product(factors, after, upto):
        return np.prod(factors[after + 1 : upto + 1])

    rows = range(len(keep))
    written = [
        [
            sum(product(keep, j, t) * product(momentum, i, j) for j in range(i, t + 1))
            for i in rows
        ]
        for t in rows
    ]
    pushed = [
        sum(product(keep, j, t) * np.prod(momentum[: j + 1]) for j in range(t + 1))
        for t in rows
    ]
    return {
        "carry_weights": np.cumprod(keep),
        "carry_velocity": pushed,
        "write_weights": written,
        "velocity_carry": np.prod(momentum),
        "velocity_write": [product(momentum, i, B - 1) for i in rows],
    }


def draw():
    rng = np.random.default_rng(0)
    return rng.uniform(0.01, 0.5, size=B), rng.uniform(0.1, 0.9, size=B)


def test_factors_equal_the_sums_written_out(x64):
    decay, momentum = draw()
    factors = chunk_decay(
        jnp.asarray(decay), jnp.asarray(momentum), jnp.ones(B, dtype=bool)
    )
    for name, expected in by_hand(decay, momentum).items():
        np.testing.assert_allclose(getattr(factors, name), expected, atol=1e-14)


def test_without_a_momentum_gate_the_factors_are_those_of_momentum_zero(x64):
    decay, _ = draw()
    factors = chunk_decay(jnp.asarray(decay), None, jnp.ones(B, dtype=bool))
    for name, expected in by_hand(decay, np.zeros(B)).items():
        # A last surprise is the velocity, but nobody asks for it.
        if name != "velocity_write":
            np.testing.assert_allclose(getattr(factors, name), expected, atol=1e-14)


def test_products_do_not_underflow_within_a_chunk(x64):
    factors = jnp.full((64,), 1e-9)
    products = np.asarray(lower_products(factors))
    for t in range(64):
        np.testing.assert_array_equal(products[t, t + 1 :], 0)
        np.testing.assert_allclose(products[t, t], 1)
    np.testing.assert_allclose(np.diagonal(products, -1), 1e-9, rtol=1e-9)


def test_a_read_before_the_own_write_sees_the_row_before(x64):
    decay, momentum = map(jnp.asarray, draw())
    after = chunk_decay(decay, momentum, jnp.ones(B, dtype=bool))
    before = after.before_own_write()
    np.testing.assert_array_equal(before.carry_weights[1:], after.carry_weights[:-1])
    np.testing.assert_array_equal(before.carry_velocity[1:], after.carry_velocity[:-1])
    assert before.carry_weights[0] == 1
    assert not np.any(before.write_weights[0])
    assert before.carry_velocity[0] == 0
    np.testing.assert_array_equal(before.write_weights[1:], after.write_weights[:-1])


def test_padding_leaves_every_factor_bit_for_bit(x64):
    decay, momentum = draw()
    real = np.ones(B, dtype=bool)
    real[[0, 3, 4]] = False
    padded = chunk_decay(
        jnp.where(real, decay, 0), jnp.where(real, momentum, 1), jnp.asarray(real)
    )
    np.testing.assert_array_equal(padded.carry_weights[3:5], padded.carry_weights[2])
    np.testing.assert_array_equal(padded.carry_velocity[3:5], padded.carry_velocity[2])
    assert (padded.carry_weights[0], padded.carry_velocity[0]) == (1, 0)


def test_extreme_gates_have_finite_values_and_gradients():
    def total(gate):
        full = jnp.full((64,), gate)
        factors = chunk_decay(full, full, jnp.ones(64, dtype=bool))
        return sum(jnp.sum(x) for x in jax.tree.leaves(factors))

    slope_of = jax.jit(jax.value_and_grad(total))
    for gate in (0.0, 1e-12, 0.5, 1.0 - 1e-7, 1.0):
        value, slope = slope_of(jnp.float32(gate))
        assert np.isfinite(value)
        assert np.isfinite(slope)
