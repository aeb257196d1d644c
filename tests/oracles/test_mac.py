"""MAC against its statement in plain NumPy: every mask, stream and order of steps."""

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest

from tests.oracles.mac import language_model_oracle, mac_oracle
from tests.models.small import jittered, small_config, small_model, stream, tokens
from titans_eqx.models.mac import MemoryAsContext

CONFIGS = {
    "default": small_config(),
    "mix, pulled back, read before": small_config(
        gate="mix", memory={"decay_towards": "initial", "read": "before"}
    ),
    "multiply, plainest memory": small_config(
        gate="multiply",
        memory={
            "depth": 1,
            "conv_taps": 1,
            "use_momentum": False,
            "decay": "none",
            "residual": False,
            "norm": False,
            "clip": 0.0,
        },
        attention={"n_persistent": 0},
    ),
    "one head, gates per head, chunks are segments": small_config(
        memory={"n_heads": 1, "gates": "per_head", "chunk_len": 4, "clip": 0.3},
        attention={"n_heads": 4},
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_mixer_equals_the_oracle(x64, config):
    mixer = jittered(eqx.filter_jit(MemoryAsContext)(config, key=jr.key(0)))
    x = stream(11)
    y, _ = eqx.filter_jit(mixer)(x, None)
    np.testing.assert_allclose(y, mac_oracle(mixer, np.asarray(x)), rtol=0, atol=1e-9)


def test_two_layer_model_equals_the_oracle(x64):
    model = small_model(small_config(tied_embeddings=False))
    ids = tokens(11)
    logits, _ = eqx.filter_jit(model)(ids)
    stack = model.stacks[0].pattern[0]
    blocks = [
        jax.tree.map(lambda leaf, i=i: leaf[i] if eqx.is_array(leaf) else leaf, stack)
        for i in range(2)
    ]
    expected = language_model_oracle(model, blocks, ids)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-9)
