"""The models that every claim about a language model is tested on."""

from collections.abc import Iterable

import pytest

from tests.models.small import small_config
from titans_eqx.config import ModelConfig

DELTA = {"rule": "delta", "depth": 1, "norm": False}

MAC: dict[str, ModelConfig] = {
    "mac": small_config(),
    "mac mixed, on some layers": small_config(
        pattern=["transformer", "mac", "transformer"],
        n_layers=3,
        gate="mix",
        tied_embeddings=False,
        memory={"initial_memory": "learned", "surprise": "full"},
        attention={"n_persistent": 0, "kernel_size": 3, "key_delay": 1},
    ),
}
OTHERS: dict[str, ModelConfig] = {
    # A prefix that ends inside a chunk: the sequence starts at a chunk all the same.
    "mag": small_config(
        pattern="mag", attention={"persistent_in_memory": True, "n_persistent": 3}
    ),
    "mal": small_config(
        pattern=["transformer", "mal"], memory={"decay": "channel", "kernel_size": 1}
    ),
    "lmm": small_config(
        pattern="lmm", memory={"gates": "per_head", "use_momentum": False}
    ),
    "transformer": small_config(pattern="transformer"),
    "every other layer mac": small_config(
        pattern=["transformer", "mac"],
        n_layers=4,
        gate="multiply",
        memory={"decay_towards": "initial", "read": "before"},
    ),
    "mag delta": small_config(pattern="mag", memory=DELTA),
    "lmm delta": small_config(
        pattern="lmm", memory={**DELTA, "chunk_len": 4, "initial_memory": "learned"}
    ),
    "lmm off": small_config(pattern="lmm", memory={"off": True, "kernel_size": 1}),
    "transformer convolved": small_config(
        pattern="transformer", attention={"kernel_size": 3}
    ),
}
ALL = {**MAC, **OTHERS}
# Made of parts that the others have too.
REMIXED = ("mac mixed, on some layers", "every other layer mac", "mag delta")


def cases(names: Iterable[str]) -> list:
    """Parameters of a test, those of models that cost much and add little marked."""
    return [
        pytest.param(name, marks=pytest.mark.slow if name in REMIXED else ())
        for name in names
    ]


def reach(config: ModelConfig) -> int | None:
    """How many tokens back a model sees; None: to the first.

    Windows and convolutions see no further than all of them laid end to end.
    """
    memory, attention = config.memory, config.attention
    if config.has_memory and not memory.off:
        return None
    window = attention.window - 1 + attention.kernel_size - 1
    of_block = {
        "transformer": window,
        "lmm": memory.kernel_size - 1,
    }
    n_repeats = config.n_layers // len(config.blocks)
    return n_repeats * sum(of_block[block] for block in config.blocks)
