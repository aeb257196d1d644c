"""A memory that is switched off: nothing is carried by it, and nothing else changes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.small import VOCAB, small_config, small_model, tokens

# Nothing but the memory could tell a token of those before it.
BLIND = {
    "lmm": small_config(pattern="lmm", memory={"kernel_size": 1}),
    "mag": small_config(
        pattern="mag", memory={"kernel_size": 1}, attention={"window": 1}
    ),
    "mal": small_config(
        pattern="mal",
        memory={"kernel_size": 1},
        attention={"window": 1, "persistent_in_memory": True},
    ),
    "lmm delta": small_config(
        pattern="lmm",
        memory={"kernel_size": 1, "rule": "delta", "depth": 1, "norm": False},
    ),
}
call = eqx.filter_jit(lambda model, ids, state: model(ids, state))
step = eqx.filter_jit(lambda model, token, state: model.step(token, state))


def switched(config, *, off):
    memory = config.memory.model_copy(update={"off": off})
    return config.model_copy(update={"memory": memory})


@pytest.mark.parametrize("config", BLIND.values(), ids=BLIND.keys())
def test_no_logit_changes_when_only_the_memory_could_carry_the_change(config):
    ids = np.asarray(tokens(7))
    changed = ids.copy()
    changed[0] = (ids[0] + 1) % VOCAB
    for off in (False, True):
        model = small_model(switched(config, off=off))
        before, after = (call(model, jnp.asarray(a), None)[0] for a in (ids, changed))
        assert np.any(before[0] != after[0])
        assert np.all(np.any(before[1:] != after[1:], axis=1) == (not off))


@pytest.mark.parametrize("config", BLIND.values(), ids=BLIND.keys())
def test_parameters_are_those_of_the_memory_switched_on_and_so_is_the_state(config):
    on, off = (small_model(switched(config, off=off)) for off in (False, True))
    state_on, state_off = (jax.eval_shape(model.init_state) for model in (on, off))
    assert state_on == state_off
    on, off = (
        {
            jax.tree_util.keystr(path): leaf
            for path, leaf in jax.tree.leaves_with_path(eqx.filter(m, eqx.is_array))
        }
        for m in (on, off)
    )
    # By name, for `jax.tree` holds the rule to be part of the structure.
    assert on.keys() == off.keys()
    for name, leaf in on.items():
        np.testing.assert_array_equal(leaf, off[name])


@pytest.mark.parametrize("config", BLIND.values(), ids=BLIND.keys())
def test_neither_a_sequence_nor_a_step_writes_or_forgets(config):
    model = small_model(switched(config, off=True))
    start = model.init_state()
    _, state = call(model, tokens(7), None)
    _, later = step(model, tokens(1)[0], state)

    def fast_weights(state):
        (layers,) = state[0]
        memory = layers if config.blocks == ("lmm",) else layers.memory
        return memory.heads.weights, memory.heads.velocity

    for after in (state, later):
        jax.tree.map(
            np.testing.assert_array_equal, fast_weights(after), fast_weights(start)
        )
