"""Unit lower triangular systems against NumPy, and without LAPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from titans_eqx.nn.triangular import solve_unit_lower, unit_lower_inverse


def random_system(n, n_systems=3):
    rng = np.random.default_rng(n)
    strict = np.tril(rng.normal(size=(n_systems, n, n)), -1) / n**0.5
    return strict, rng.normal(size=(n_systems, n, 5))


@jax.vmap
def solve_one(strict, right):
    return solve_unit_lower(strict, unit_lower_inverse(strict), right)


@pytest.mark.parametrize("n", [1, 2, 3, 16, 33])
def test_solutions_and_their_slopes_are_those_of_numpy(x64, n):
    strict, right = random_system(n)

    @jax.jit
    def solve(*system):
        solution, pull_back = jax.vjp(solve_one, *system)
        return solution, pull_back(2 * solution)  # of the sum of squares

    solution, (by_strict, by_right) = solve(strict, right)
    expected = np.linalg.solve(np.eye(n) + strict, right)
    np.testing.assert_allclose(solution, expected, atol=1e-10)
    transposed = np.moveaxis(np.eye(n) + strict, 1, 2)
    slope = np.linalg.solve(transposed, 2 * expected)
    np.testing.assert_allclose(by_right, slope, atol=1e-10)
    outer = -slope @ np.moveaxis(expected, 1, 2)
    np.testing.assert_allclose(np.tril(by_strict, -1), np.tril(outer, -1), atol=1e-9)


@pytest.mark.parametrize("n", [1, 2])
def test_a_batch_of_systems_in_a_loop_has_slopes(n):
    """As the heads of a memory, whose scan goes over chunks of `n` tokens."""

    def total(strict, right):
        def body(sum_, scale):
            return sum_ + jnp.sum(solve_one(scale * strict, right)), None

        return jax.lax.scan(body, 0.0, jnp.ones(3))[0]

    strict, right = jnp.zeros((2, n, n)), jnp.ones((2, n, 4))
    by_strict, by_right = jax.jit(jax.grad(total, argnums=(0, 1)))(strict, right)
    # Each solution is its right side; row j of it is what column j is multiplied by.
    np.testing.assert_allclose(by_strict, np.full((2, n, n), -12.0))
    np.testing.assert_allclose(by_right, np.full((2, n, 4), 3.0))


def test_slopes_of_slopes_are_those_of_a_dense_solver(x64):
    strict, right = random_system(4, 1)

    def by_inverse(x):
        return jnp.sum(jnp.sin(solve_one(jnp.tril(x, -1)[None], right)))

    def dense(x):
        return jnp.sum(
            jnp.sin(jnp.linalg.solve(jnp.eye(4) + jnp.tril(x, -1), right[0]))
        )

    slopes, expected = (jax.hessian(f)(strict[0]) for f in (by_inverse, dense))
    assert jnp.abs(expected).max() > 0.1
    np.testing.assert_allclose(slopes, expected, atol=1e-10)


@pytest.mark.parametrize("n", [1, 3])
def test_systems_may_differ_from_device_to_device(n):
    strict, right = (x.astype(np.float32) for x in random_system(n, 4))
    slopes = jax.grad(lambda *system: jnp.sum(jnp.sin(solve_one(*system))), (0, 1))
    mesh = jax.sharding.Mesh(jax.devices()[:2], ("data",))
    spec = jax.sharding.PartitionSpec("data")
    sharded = jax.shard_map(slopes, mesh=mesh, in_specs=spec, out_specs=spec)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        jax.jit(sharded)(strict, right),
        slopes(strict, right),
    )


def test_one_key_written_in_full_again_and_again_loses_no_digits():
    """The differences of the rows, where powers of the matrix would overflow."""
    strict = jnp.tril(jnp.ones((64, 64)), -1)
    right = 1e4 * jnp.cumsum(jnp.ones((64, 1)), axis=0)
    np.testing.assert_allclose(solve_one(strict[None], right[None])[0], 1e4, rtol=1e-5)


def test_nothing_goes_through_lapack():
    """Its calls wait for each other where programs run side by side on CPUs."""
    strict, right = random_system(16)
    both = jax.value_and_grad(lambda *system: jnp.sum(solve_one(*system)))
    assert "custom_call" not in jax.jit(both).lower(strict, right).as_text()
