import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tests.memory.problems import largest_difference
from titans_eqx.config import MemoryConfig
from titans_eqx.memory import NeuralMemory

D_MODEL, N_TOKENS = 8, 19
SMALL = {"n_heads": 2, "chunk_len": 4, "expansion": 2}
CONFIGS = {
    "default": MemoryConfig(**SMALL),
    "linear": MemoryConfig(**SMALL, depth=1),
    "no_conv": MemoryConfig(**SMALL, conv_taps=1),
    "no_momentum": MemoryConfig(**SMALL, use_momentum=False),
    "no_decay": MemoryConfig(**SMALL, decay="none"),
    "channel_decay": MemoryConfig(**SMALL, decay="channel", decay_towards="initial"),
    "gate_per_head": MemoryConfig(**SMALL, gates="per_head"),
    "to_initial": MemoryConfig(**SMALL, decay_towards="initial", read="before"),
}
call = eqx.filter_jit(lambda memory, x, state: memory(x, state))
step = eqx.filter_jit(lambda memory, x, state: memory.step(x, state))


def build(config):
    return NeuralMemory(D_MODEL, config, key=jr.key(0))


def tokens(n=N_TOKENS):
    return jr.normal(jr.key(1), (n, D_MODEL))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_pieces_and_steps_equal_the_sequence(config):
    memory, x = build(config), tokens()
    whole, last = call(memory, x, None)

    state, reads = memory.init_state(), []
    for start, stop in ((0, 3), (3, 11), (11, 19)):
        y, state = call(memory, x[start:stop], state)
        reads.append(y)
    assert largest_difference((jnp.concatenate(reads), state), (whole, last)) < 1e-10

    state, reads = memory.init_state(), []
    for token in x:
        y, state = step(memory, token, state)
        reads.append(y)
    assert largest_difference((jnp.stack(reads), state), (whole, last)) < 1e-10


@pytest.mark.parametrize("name", ["default", "linear", "no_conv"])
def test_no_output_depends_on_a_later_token(name):
    memory, x = build(CONFIGS[name]), tokens(13)
    jacobian = jax.jit(jax.jacobian(lambda x: memory(x)[0]))(x)
    influence = np.abs(np.asarray(jacobian)).sum(axis=(1, 3))
    is_past = np.tril(np.ones((13, 13), bool))
    assert np.all(influence[~is_past] == 0)
    assert np.all(influence[is_past] > 0)


def test_batch_rows_do_not_talk_and_vmap_equals_eager():
    memory = build(CONFIGS["default"])
    x = jr.normal(jr.key(1), (3, N_TOKENS, D_MODEL))
    y, _ = jax.jit(jax.vmap(memory))(x)
    alone, _ = memory(x[1])
    np.testing.assert_allclose(y[1], alone, atol=1e-5)
    changed, _ = jax.jit(jax.vmap(memory))(x.at[0].add(1.0))
    np.testing.assert_array_equal(changed[1:], y[1:])


def test_gradient_reaches_everything_but_the_frozen_memory():
    memory, x = build(CONFIGS["default"]), tokens()
    gradient = eqx.filter_jit(eqx.filter_grad(lambda m, x: jnp.sum(m(x)[0] ** 2)))(
        memory, x
    )
    without = {
        jax.tree_util.keystr(path, simple=True)
        for path, leaf in jax.tree.leaves_with_path(gradient)
        if not np.any(np.asarray(leaf))
    }
    assert len(without) == 2
    assert all("initial_weights" in name for name in without)


def test_a_step_of_zero_switches_the_memory_off():
    memory, x = build(MemoryConfig(**SMALL, max_step=0.0, conv_taps=1)), tokens()
    memory = eqx.tree_at(
        lambda m: m.gates.decay.bias, memory, replace_fn=lambda b: b - 99
    )
    y, _ = memory(x)
    changed, _ = memory(x.at[0].add(1.0))
    np.testing.assert_array_equal(y[1:], changed[1:])


def test_half_precision_keeps_a_wide_state():
    memory = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if eqx.is_inexact_array(x) else x,
        build(CONFIGS["default"]),
    )
    y, state = memory(tokens().astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert all(w.dtype == jnp.float32 for w in state.memory.weights)
    y, state = memory.step(y[0], state)
    assert y.dtype == jnp.bfloat16
    assert all(w.dtype == jnp.float32 for w in state.memory.momentum)


HOSTILE = {
    "repeated": jnp.ones((2048, D_MODEL)),
    "alternating": 1e4
    * jnp.where(jnp.arange(2048)[:, None] % 2 == 0, 1.0, -1.0)
    * jnp.ones((2048, D_MODEL)),
    "huge": 1e4 * jr.normal(jr.key(3), (2048, D_MODEL)),
}


@pytest.mark.parametrize("x", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_streams_stay_finite(x):
    memory = build(MemoryConfig(**SMALL, clip=1.0))
    y, state = call(memory, x, None)
    assert np.all(np.isfinite(y))
    for start, w in zip(memory.initial_weights, state.memory.weights, strict=True):
        # |S| <= theta c / (1 - eta) and M adds one S a token: growth is at most linear.
        bound = np.linalg.norm(start) + 2048 * memory.gates.max_step * 10
        assert np.linalg.norm(w) < bound


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match=r"n_heads=3 and\s+d_model=8"):
        NeuralMemory(8, MemoryConfig(n_heads=3), key=jr.key(0))
    with pytest.raises(TypeCheckError):
        build(CONFIGS["default"])(jnp.ones((5, D_MODEL + 1)))
