import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.small import small_config, small_model, tokens
from tests.oracles.memory import surprise
from titans_eqx.evaluation import inspect_text, inspect_tokens
from titans_eqx.evaluation import inspection as module
from titans_eqx.memory import observe
from titans_eqx.models import AbstractMemoryMixer
from titans_eqx.nn import Span

inspect = eqx.filter_jit(inspect_tokens)
call = eqx.filter_jit(lambda model, ids: model(ids))
CONFIGS = {
    "mac on some layers": small_config(n_layers=3, memory={"layers": [1]}),
    "mag": small_config(variant="mag", memory={"decay": "channel"}),
    "mal": small_config(variant="mal"),
    "lmm": small_config(variant="lmm"),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_inspecting_is_reading(config):
    model, ids = small_model(config), tokens(11)
    figures, state = inspect(model, ids)
    logits, expected = call(model, ids)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), state, expected
    )
    losses = -np.asarray(jax.nn.log_softmax(logits))[np.arange(10), ids[1:]]
    np.testing.assert_allclose(figures.loss[1:], losses, atol=1e-9)
    assert np.isnan(figures.loss[0])
    has_memory = config.memory.layers
    assert list(figures.layers) == (
        list(range(config.n_layers)) if has_memory == "all" else list(has_memory)
    )
    # The norm of the last write is that of the weights in the state.
    layer, memories = max(figures.layers), []
    for leaf in jax.tree.leaves(
        state, is_leaf=lambda x: hasattr(x, "conv_inputs") or hasattr(x, "memory")
    ):
        memory = leaf if hasattr(leaf, "conv_inputs") else getattr(leaf, "memory", None)
        if memory is not None:
            memories.append(memory.memory.weights)
    square = sum(np.sum(np.square(w[-1]), axis=(1, 2)) for w in memories[-1])
    np.testing.assert_allclose(
        figures.layers[layer].weight_norm[-1], np.sqrt(square), atol=1e-9
    )


@pytest.mark.usefixtures("x64")
def test_surprise_is_the_norm_of_the_oracles_gradient():
    model = small_model(CONFIGS["lmm"])
    block = jax.tree.map(
        lambda x: x[0] if eqx.is_array(x) else x, model.stacks[0].pattern[0]
    )
    assert isinstance(block.mixer, AbstractMemoryMixer)
    memory, state = block.mixer.memory, block.init_state()
    x = jnp.asarray(np.random.default_rng(0).normal(size=8))
    inputs, _ = memory.project(x[None], Span.whole(1), state.conv_inputs)
    for head, norm in enumerate(observe(memory, x, state).surprise):
        anchor = [np.asarray(w[head]) for w in state.memory.anchor]
        key, value = inputs.keys[0, head], inputs.values[0, head]
        u = surprise(anchor, np.asarray(key), np.asarray(value))
        assert float(norm) == pytest.approx(np.sqrt(sum(np.sum(g**2) for g in u)))


def test_a_text_in_pieces_gives_the_figures_of_the_whole(monkeypatch):
    monkeypatch.setattr(module, "PIECE_LEN", 8)
    model, ids = small_model(CONFIGS["mac on some layers"]), tokens(19)
    whole, _ = inspect(model, ids)
    parts = inspect_text(model, np.asarray(ids))
    assert np.isnan(parts.loss[0])
    for a, b in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
