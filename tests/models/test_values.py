"""Every block against its statement in plain NumPy: all masks, streams and orders.

The oracles are written from the design, get parameters as arrays and options from the
config, and see nothing of the package.
"""

import ast
import inspect

import equinox as eqx
import numpy as np
import pytest

from tests.models.small import (
    blocks_of,
    small_block,
    small_config,
    small_model,
    stream,
    tokens,
)
from tests.oracles import attention, memory_layer, mixers
from tests.oracles.parameters import parameters

N_TOKENS = 11  # whole segments, windows and chunks, and a part of each
PLAINEST = {
    "depth": 1,
    "kernel_size": 1,
    "use_momentum": False,
    "decay": "none",
    "residual": False,
    "norm": False,
    "clip": 0.0,
}
DELTA = {"rule": "delta", "depth": 1, "norm": False}
OTHER_DELTA = {**DELTA, "residual": False, "read": "before", "decay": "none"}
LINEAR_PATH = {
    "value_activation": "none",
    "value_norm": True,
    "read_norm": False,
    "gate_start": "open",
}
PERSISTENT = {"persistent_in_memory": True}
BLOCKS = {
    "mac": small_config(),
    "mac: mix, pulled back, read before": small_config(
        gate="mix", memory={"decay_towards": "initial", "read": "before"}
    ),
    "mac: multiply, plainest memory": small_config(
        gate="multiply", memory=PLAINEST, attention={"n_persistent": 0}
    ),
    "mac: one head, gates per head, chunks are segments": small_config(
        memory={
            "n_heads": 1,
            "gates": "per_head",
            "chunk_len": 4,
            "clip": 0.3,
            "target": "next",
        },
        attention={"n_heads": 4},
    ),
    "mac: delta": small_config(memory=DELTA),
    # A convolution that sees tokens of the two segments before.
    "mac: convolutions": small_config(
        attention={"kernel_size": 6, "key_delay": 1, "segment_len": 4}
    ),
    "mag": small_config(pattern="mag"),
    # A prefix that ends inside a chunk: the sequence starts at a chunk all the same.
    "mag: mix, memory reads the prefix": small_config(
        pattern="mag",
        gate="mix",
        memory={"target": "next"},
        attention={**PERSISTENT, "n_persistent": 3},
    ),
    "mag: multiply, delta, convolutions, no prefix": small_config(
        pattern="mag",
        gate="multiply",
        memory=DELTA,
        attention={**PERSISTENT, "n_persistent": 0, "kernel_size": 2},
    ),
    "mag: delta that reads values as they were": small_config(
        pattern="mag", memory={**OTHER_DELTA, **LINEAR_PATH}
    ),
    "mal": small_config(pattern="mal", memory=PLAINEST),
    "mal: memory reads the prefix": small_config(
        pattern="mal",
        memory={"chunk_len": 4, "decay": "channel", "decay_towards": "initial"},
        attention={**PERSISTENT, "kernel_size": 3, "rope_base": 100.0},
    ),
    "mal: delta, memory reads the prefix": small_config(
        pattern="mal", memory=OTHER_DELTA, attention=PERSISTENT
    ),
    "mal: memory off": small_config(
        pattern="mal", memory={"off": True}, attention=PERSISTENT
    ),
    "lmm": small_config(pattern="lmm", memory={"max_learning_rate": 0.2}),
    "lmm: delta without momentum": small_config(
        pattern="lmm", memory={**DELTA, "use_momentum": False, "gates": "per_head"}
    ),
    "lmm: memory off": small_config(pattern="lmm", memory={"off": True}),
    "transformer": small_config(pattern="transformer"),
    "transformer: convolutions, window beyond the sequence": small_config(
        pattern="transformer",
        attention={"kernel_size": 4, "window": 16, "n_persistent": 0},
    ),
    "transformer: convolutions": small_config(
        pattern="transformer", attention={"kernel_size": 3, "n_heads": 4}
    ),
}


@pytest.mark.parametrize("config", BLOCKS.values(), ids=BLOCKS.keys())
def test_block_equals_the_oracle(x64, config):
    block, x = small_block(config), stream(N_TOKENS)
    y, _ = eqx.filter_jit(block)(x, None)
    (name,) = config.blocks
    expected = mixers.block(name, parameters(block), config.model_dump(), np.asarray(x))
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-10)


MODELS = {
    "stacked": small_config(tied_embeddings=False),
    "pattern, tied": small_config(pattern=["transformer", "mac"], n_layers=4),
    "no repeats": small_config(pattern=["lmm", "mal", "mag"], n_layers=3),
}


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
def test_model_equals_the_oracle(x64, config):
    model, ids = small_model(config), tokens(N_TOKENS)
    logits, _ = eqx.filter_jit(model)(ids)
    names = config.blocks * (config.n_layers // len(config.blocks))
    layers = [parameters(block) for block in blocks_of(model.backbone)]
    expected = mixers.language_model(
        parameters(model),
        list(zip(names, layers, strict=True)),
        config.model_dump(),
        np.asarray(ids),
    )
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("module", [attention, memory_layer, mixers])
def test_the_oracles_import_nothing_of_the_package(module):
    names = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    ours = {name for name in names if name.startswith("tests.oracles")}
    assert names - ours <= {"collections.abc", "typing", "numpy"}
