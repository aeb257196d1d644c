import itertools
import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.oracles.memory import memory_forward
from titans_eqx.config import MemoryConfig
from titans_eqx.memory import DeltaRule, MemoryNet, NeuralMemory, check_rule
from titans_eqx.memory.features import monomials, n_monomials
from titans_eqx.nn.norm import unit_norm

D = 4
WRAPPERS = [(True, True), (True, False), (False, True), (False, False)]


@pytest.mark.parametrize(("residual", "norm"), WRAPPERS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_read_equals_the_oracle(x64, depth, residual, norm):
    net = MemoryNet(D, depth, 2, residual=residual, norm=norm)
    weights, queries = net.init(jr.key(0)), jr.normal(jr.key(1), (5, D))
    expected = [
        memory_forward(
            [np.asarray(w) for w in weights], query, residual=residual, norm=norm
        )
        for query in np.asarray(queries)
    ]
    np.testing.assert_allclose(net(weights, queries), expected, atol=1e-12)
    np.testing.assert_allclose(net(weights, queries[2]), expected[2], atol=1e-12)


def test_shapes_of_the_maps():
    assert MemoryNet(4, 1, 8).shapes == ((4, 4),)
    assert MemoryNet(4, 3, 2).shapes == ((4, 8), (8, 8), (8, 4))


def test_a_memory_is_linear_with_one_map_and_no_norm(x64):
    """Then, and only then, reads of two memories add up, but for the residual."""
    for depth, norm in ((1, False), (1, True), (2, False)):
        net = MemoryNet(D, depth, 2, norm=norm)
        one, other = net.init(jr.key(0)), net.init(jr.key(1))
        query = jnp.arange(1.0, 5.0)
        both = net(jax.tree.map(jnp.add, one, other), query) + query
        adds_up = np.allclose(both, net(one, query) + net(other, query), atol=1e-10)
        assert net.is_linear == adds_up == (depth == 1 and not norm)


def test_initial_weights_keep_the_scale_of_their_input():
    net = MemoryNet(64, 2, 4)
    for weights, (d_in, _) in zip(net.init(jr.key(0)), net.shapes, strict=True):
        np.testing.assert_allclose(jnp.std(weights), d_in**-0.5, rtol=0.05)


def test_a_memory_that_is_switched_off_by_zero_weights_reads_its_query():
    net = MemoryNet(D)
    zeros = jax.tree.map(jnp.zeros_like, net.init(jr.key(0)))
    query = jnp.arange(1.0, 5.0)
    np.testing.assert_array_equal(net(zeros, query), query)


def monomials_oracle(x, degree):
    """Each product of features, features in any order counted once."""
    return [
        math.prod(x[i] for i in factors) / math.factorial(n)
        for n in range(1, degree + 1)
        for factors in itertools.product(range(len(x)), repeat=n)
        if list(factors) == sorted(factors)
    ]


@pytest.mark.parametrize(("d", "degree"), [(1, 3), (4, 1), (4, 2), (4, 3), (3, 4)])
def test_monomials_are_all_products_of_features(x64, d, degree):
    rows = np.random.default_rng(0).normal(size=(5, d))
    expected = [monomials_oracle(row, degree) for row in rows]
    actual = monomials(jnp.asarray(rows), degree)
    np.testing.assert_allclose(actual, expected, rtol=1e-14)
    np.testing.assert_allclose(monomials(jnp.asarray(rows[2]), degree), expected[2])
    assert n_monomials(d, degree) == len(expected[0])
    np.testing.assert_array_equal(actual[:, :d], rows)


@pytest.mark.parametrize(("residual", "norm"), WRAPPERS)
@pytest.mark.parametrize(("depth", "degree"), [(1, 2), (1, 3), (2, 2)])
def test_read_of_features_equals_the_oracle(x64, depth, degree, residual, norm):
    net = MemoryNet(D, depth, 2, residual=residual, norm=norm, degree=degree)
    weights, queries = net.init(jr.key(0)), jr.normal(jr.key(1), (5, D))
    assert weights[0].shape[0] == n_monomials(D, degree)
    expected = []
    for query in np.asarray(queries):
        features = np.array(monomials_oracle(query, degree))
        rows = [np.asarray(w) for w in weights]
        y = memory_forward(rows, features, residual=False, norm=norm)
        expected.append(query + y if residual else y)
    np.testing.assert_allclose(net(weights, queries), expected, atol=1e-12)


def test_the_delta_rule_writes_features(x64):
    net = MemoryNet(4, 1, norm=False, degree=2)
    assert net.is_linear
    assert net.shapes == ((14, 4),)
    check_rule(DeltaRule(chunk_len=4), net, d=4)
    net = MemoryNet(4, 1, norm=False, degree=2, feature_scale=3.0)
    check_rule(DeltaRule(chunk_len=4), net, d=4)


@pytest.mark.parametrize("depth", [1, 2])
def test_read_of_scaled_features_equals_the_oracle(x64, depth):
    net = MemoryNet(D, depth, 2, residual=False, degree=2, feature_scale=3.0)
    weights, queries = net.init(jr.key(0)), jr.normal(jr.key(1), (5, D))
    rows = [np.asarray(w) for w in weights]
    for query, read in zip(np.asarray(queries), net(weights, queries), strict=True):
        features = np.array(monomials_oracle(3 * query, 2))
        features /= np.linalg.norm(features)
        expected = memory_forward(rows, features, residual=False)
        np.testing.assert_allclose(read, expected, atol=1e-6)


def test_a_larger_scale_tells_similar_keys_apart():
    keys = unit_norm(1 + jr.normal(jr.key(0), (2, D)))

    def similarity(scale):
        net = MemoryNet(D, 1, norm=False, residual=False, degree=2, feature_scale=scale)
        one, other = keys
        # A memory that has stored the value 1 under one key, read by the other.
        (features,) = jax.jacobian(lambda w: net(w, one)[0])(net.init(jr.key(0)))
        return float(net((features,), other)[0])

    assert similarity(6.0) < similarity(0.1) < 1


def test_a_config_names_the_degree():
    config = MemoryConfig(
        n_heads=4, depth=1, norm=False, rule="delta", degree=3, feature_scale=2.0
    )
    memory = NeuralMemory.from_config(16, config, key=jr.key(0))
    assert memory.heads.initial_weights[0].shape == (4, 34, 4)
    x = jr.normal(jr.key(1), (7, 16))
    assert jax.eval_shape(memory, x)[0].shape == x.shape
    assert memory.heads.net.feature_scale == 2.0


@pytest.mark.parametrize("name", ["d", "depth", "expansion", "degree"])
def test_bad_sizes_are_refused(name):
    sizes = {"d": D, "depth": 2, "expansion": 2, "degree": 1, name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {name}=0"):
        MemoryNet(**sizes)
    message = "feature_scale must be at least 0, got feature_scale=-1.0"
    with pytest.raises(ValueError, match=message):
        MemoryNet(D, feature_scale=-1.0)
