import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.small import small_config, small_model, tokens
from tests.oracles.memory import surprise
from titans_eqx.data import ByteTokenizer
from titans_eqx.evaluation import inspect_text, inspect_tokens
from titans_eqx.evaluation import inspection as module
from titans_eqx.memory import NeuralMemory, NeuralMemoryState
from titans_eqx.nn.padding import Padding

inspect = eqx.filter_jit(inspect_tokens)
call = eqx.filter_jit(lambda model, ids: model(ids))
CONFIGS = {
    "mac on some layers": small_config(pattern=["transformer", "mac"]),
    "mag": small_config(pattern="mag", memory={"decay": "channel"}),
    "delta": small_config(
        pattern="lmm", memory={"rule": "delta", "depth": 1, "norm": False}
    ),
}


def memory_layers(config):
    blocks = config.blocks * (config.n_layers // len(config.blocks))
    return [i for i, block in enumerate(blocks) if block != "transformer"]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_inspecting_is_reading(config):
    model, ids = small_model(config), tokens(11)
    inspection, state = inspect(model, ids)
    logits, expected = call(model, ids)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), state, expected
    )
    losses = -np.asarray(jax.nn.log_softmax(logits))[np.arange(10), ids[1:]]
    np.testing.assert_allclose(inspection.loss[1:], losses, atol=1e-9)
    assert np.isnan(inspection.loss[0])
    assert list(inspection.layers) == memory_layers(config)
    # The norm of the last write is that of the weights in the state.
    memories = jax.tree.leaves(
        state, is_leaf=lambda x: isinstance(x, NeuralMemoryState)
    )
    *_, last = (x for x in memories if isinstance(x, NeuralMemoryState))
    square = sum(np.sum(np.square(w[-1]), axis=(1, 2)) for w in last.heads.weights)
    np.testing.assert_allclose(
        inspection.layers[max(inspection.layers)].weight_norm[-1],
        np.sqrt(square),
        atol=1e-9,
    )


@pytest.mark.usefixtures("x64")
def test_surprise_is_the_norm_of_the_oracles_gradient():
    stacked = small_model(small_config(pattern="lmm"))
    model = jax.tree.map(lambda x: x, stacked.unstack())
    memory, *_ = (
        x
        for x in jax.tree.leaves(model, is_leaf=lambda x: isinstance(x, NeuralMemory))
        if isinstance(x, NeuralMemory)
    )
    memory = jax.tree.map(lambda x: x[0], memory)
    state = memory.init_state()
    x = jnp.asarray(np.random.default_rng(0).normal(size=8))

    @eqx.filter_jit
    def look(memory, x, state):
        projections, padding = memory.heads.projections, Padding.none(1)
        inputs, _ = projections(x[None], state.projections, padding)
        return inputs, memory.probe(x, state).surprise

    inputs, surprises = look(memory, x, state)
    for head, norm in enumerate(surprises):
        anchor = [np.asarray(w[head]) for w in state.heads.anchor]
        key, value = inputs.keys[0, head], inputs.values[0, head]
        u = surprise(anchor, np.asarray(key), np.asarray(value))
        assert float(norm) == pytest.approx(np.sqrt(sum(np.sum(g**2) for g in u)))


@pytest.mark.slow
def test_a_text_in_blocks_gives_the_inspection_of_the_whole(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_LEN", 8)
    model, ids = small_model(CONFIGS["delta"]), tokens(19)
    whole, _ = inspect(model, ids)
    parts = inspect_text(model, np.asarray(ids))
    assert np.isnan(parts.loss[0])
    for a, b in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(
    ("memory", "gates"),
    [
        ({}, {"alpha", "eta", "theta"}),
        ({"use_momentum": False, "decay": "none"}, {"theta"}),
    ],
)
def test_records_have_the_gates_that_there_are(memory, gates):
    config = small_config(pattern="lmm", memory=memory)
    model, ids = small_model(config), tokens(3)
    inspection, _ = inspect(model, ids)
    records = list(module.records(inspection, np.asarray(ids), ByteTokenizer()))
    assert [record["loss"] is None for record in records] == [True, False, False]
    for record in records:
        assert [layer["layer"] for layer in record["layers"]] == [0, 1]
        for layer in record["layers"]:
            assert layer.keys() == {"layer", "surprise", "memory_norm"} | gates
            assert np.shape(layer["surprise"]) == np.shape(layer["memory_norm"]) == (2,)
            assert all(np.shape(layer[gate]) == (2, 2) for gate in gates)
