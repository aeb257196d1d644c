"""The Omega rule by its keys in a config, and as a layer."""

import equinox as eqx
import jax.random as jr
import numpy as np
import pytest
from pydantic import ValidationError

from tests.memory.problems import stream_difference
from titans_eqx.config import MemoryConfig, ModelConfig
from titans_eqx.memory import NeuralMemory, OmegaRule

pytestmark = pytest.mark.usefixtures("x64")
D_MODEL = 8
SMALL = {"rule": "omega", "n_heads": 2, "expansion": 2, "chunk_len": 4}


@pytest.mark.parametrize("window", [3, 7])
def test_the_layer_reads_pieces_and_steps_like_the_sequence(window):
    config = MemoryConfig(**SMALL, window=window)
    memory = NeuralMemory.from_config(D_MODEL, config, key=jr.key(0))
    assert isinstance(memory.heads.rule, OmegaRule)
    assert memory.heads.rule.window == window
    x = jr.normal(jr.key(1), (11, D_MODEL))
    assert stream_difference(memory, x) < 1e-10


def test_a_config_switches_the_rule_off():
    config = MemoryConfig(**SMALL, off=True, kernel_size=1)
    memory = NeuralMemory.from_config(D_MODEL, config, key=jr.key(0))
    x = jr.normal(jr.key(1), (11, D_MODEL))
    call = eqx.filter_jit(memory)
    y, _ = call(x)
    changed, _ = call(x.at[0].add(1.0))
    np.testing.assert_array_equal(y[1:], changed[1:])


REFUSED = {
    "window without the rule": (
        {"window": 8},
        r'window must be left out with model\.memory\.rule = "titans", got 8',
    ),
    "channels": (
        {"rule": "omega", "decay": "channel"},
        r'decay must be "scalar" with model\.memory\.rule = "omega", got "channel"',
    ),
    "no decay": ({"rule": "omega", "decay": "none"}, r'"scalar" .* got "none"'),
    "towards the start": (
        {"rule": "omega", "decay_towards": "initial"},
        r'decay_towards must be "zero" with .* got "initial"',
    ),
    "no momentum": (
        {"rule": "omega", "use_momentum": False},
        r"use_momentum must be true with .* got false",
    ),
}


@pytest.mark.parametrize(("memory", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_combinations_that_mean_nothing_are_refused(memory, message):
    with pytest.raises(ValidationError, match=message):
        ModelConfig(memory=MemoryConfig(**memory))
