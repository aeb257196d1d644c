import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from tests.memory.problems import assert_identical, largest_difference
from titans_eqx.config import MemoryConfig
from titans_eqx.memory import NeuralMemory
from titans_eqx.nn.padding import Padding

D_MODEL, N_TOKENS = 8, 19


def build(**options):
    config = MemoryConfig(n_heads=2, chunk_len=4, expansion=2, **options)
    memory = NeuralMemory.from_config(D_MODEL, config, key=jr.key(0))
    return memory.heads.projections


def test_queries_may_start_as_the_keys_and_are_trained_apart():
    projections = build(query_start="keys")
    assert_identical(projections.query, projections.key)
    leaves = jax.tree.leaves(eqx.filter(projections, eqx.is_array))
    assert len({id(leaf) for leaf in leaves}) == len(leaves)
    projections = build()
    assert largest_difference(projections.query, projections.key) > 0.1


def test_keys_and_queries_may_start_as_contexts():
    projections = build(key_start="context")
    for one in (projections.key, projections.query):
        assert jnp.min(jnp.std(one.conv.kernel, axis=1)) > 0.2
    assert jnp.max(jnp.std(projections.value.conv.kernel, axis=1)) < 0.3


def test_values_may_have_unit_mean_square():
    projections = build(value_norm=True)
    x = jr.normal(jr.key(1), (N_TOKENS, D_MODEL))
    inputs, _ = projections(x, projections.init_state(), Padding.none(N_TOKENS))
    np.testing.assert_allclose(jnp.mean(inputs.values**2, axis=-1), 1, rtol=1e-3)
