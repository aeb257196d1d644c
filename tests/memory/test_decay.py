import jax
import jax.numpy as jnp
import numpy as np

from titans_eqx.memory.decay import before_own_write, chunk_decay

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
        "kept": np.cumprod(keep),
        "pushed": pushed,
        "written": written,
        "momentum_kept": np.prod(momentum),
        "momentum_written": [product(momentum, i, B - 1) for i in rows],
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


def test_a_read_before_the_own_write_sees_the_row_before(x64):
    decay, momentum = map(jnp.asarray, draw())
    after = chunk_decay(decay, momentum, jnp.ones(B, dtype=bool))
    before = before_own_write(after)
    assert before.kept[0] == 1
    assert not np.any(before.written[0])
    assert before.pushed[0] == 0
    np.testing.assert_array_equal(before.written[1:], after.written[:-1])


def test_padding_leaves_every_factor_bit_for_bit(x64):
    decay, momentum = draw()
    real = np.ones(B, dtype=bool)
    real[[0, 3, 4]] = False
    padded = chunk_decay(
        jnp.where(real, decay, 0), jnp.where(real, momentum, 1), jnp.asarray(real)
    )
    np.testing.assert_array_equal(padded.kept[3:5], padded.kept[2])
    np.testing.assert_array_equal(padded.pushed[3:5], padded.pushed[2])
    assert (padded.kept[0], padded.pushed[0]) == (1, 0)


def test_extreme_gates_have_finite_values_and_gradients():
    def total(gate):
        full = jnp.full((64,), gate)
        factors = chunk_decay(full, full, jnp.ones(64, dtype=bool))
        return sum(jnp.sum(x) for x in jax.tree.leaves(factors))

    for gate in (0.0, 1e-12, 0.5, 1.0 - 1e-7, 1.0):
        value, slope = jax.value_and_grad(total)(jnp.float32(gate))
        assert np.isfinite(value)
        assert np.isfinite(slope)
