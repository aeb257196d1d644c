import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from titans_eqx.config import MemoryConfig
from titans_eqx.memory.gates import MemoryGates

D_MODEL, N_HEADS, DEPTH = 16, 2, 3
CHANNELS = (8, 32, 32)  # rows of the weights of each memory layer


def gates_at_random_tokens(**options):
    config = MemoryConfig(n_heads=N_HEADS, depth=DEPTH, max_step=0.2, **options)
    gates = MemoryGates(D_MODEL, config, CHANNELS, key=jr.key(0))
    return jax.vmap(gates)(jr.normal(jr.key(1), (50, D_MODEL)))


def test_gates_start_where_the_design_says():
    decay, momentum, step = gates_at_random_tokens()
    for gate in (decay, momentum, step):
        assert gate.shape == (50, N_HEADS, DEPTH)
        assert np.all(np.std(gate, axis=0) > 0), "every gate depends on the token"
    decay = np.asarray(decay)
    assert np.all((decay > 0.005) & (decay < 0.02))
    assert np.all((momentum > 0.05) & (momentum < 0.5))
    assert np.all((step > 0.05) & (step < 0.15))


def test_decay_starts_where_the_config_says():
    decay, _, _ = gates_at_random_tokens(decay_start=1e-4)
    decay = np.asarray(decay)
    assert np.all((decay > 0.5e-4) & (decay < 2e-4))


def test_a_gate_per_head_is_shared_by_the_layers_of_its_memory():
    for gate in gates_at_random_tokens(gates="per_head"):
        np.testing.assert_array_equal(gate[..., 0], gate[..., -1])
        assert np.any(gate[:, 0] != gate[:, 1])


def test_channel_wise_decay_has_a_value_for_each_row_of_the_weights():
    decay, momentum, _ = gates_at_random_tokens(decay="channel")
    assert [a.shape for a in decay] == [(50, N_HEADS, n) for n in CHANNELS]
    assert momentum.shape == (50, N_HEADS, DEPTH)
    for alpha in decay:
        assert np.all((alpha > 0.005) & (alpha < 0.02))
        assert np.all(np.std(alpha, axis=-1) > 0)


@pytest.mark.parametrize(
    ("options", "which"),
    [({"decay": "none"}, 0), ({"use_momentum": False}, 1)],
    ids=["decay", "momentum"],
)
def test_a_gate_that_is_switched_off_is_exactly_zero(options, which):
    gates = gates_at_random_tokens(**options)
    assert [not np.any(gate) for gate in gates] == [i == which for i in range(3)]


def test_gates_are_wide_in_half_precision():
    gates = MemoryGates(D_MODEL, MemoryConfig(), (4, 16), key=jr.key(0))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), gates)
    assert {x.dtype for x in half(jnp.ones(D_MODEL, jnp.bfloat16))} == {
        jnp.dtype("float32")
    }
