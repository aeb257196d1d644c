"""Which block each layer is: the only place where a name becomes a variant."""

import math
from typing import Literal, TypeAlias

import jax.random as jr
from jaxtyping import PRNGKeyArray

from titans_eqx.config import ModelConfig
from titans_eqx.models.mixer import AbstractMixer, Block
from titans_eqx.models.lmm import MemoryAlone
from titans_eqx.models.mac import MemoryAsContext
from titans_eqx.models.mag import MemoryAsGate
from titans_eqx.models.mal import MemoryAsLayer
from titans_eqx.models.attention import AttentionOnly

LayerKind: TypeAlias = Literal["mac", "mag", "mal", "lmm", "transformer"]


def layer_kinds(config: ModelConfig) -> tuple[LayerKind, ...]:
    """What each layer of a model is.

    Args:
        config: Sizes and options of the model.

    Returns:
        The variant where a layer carries memory, the baseline where it does not.
    """
    with_memory = config.memory.layers
    return tuple(
        config.variant if with_memory == "all" or i in with_memory else "transformer"
        for i in range(config.n_layers)
    )


def build_block(kind: LayerKind, config: ModelConfig, *, key: PRNGKeyArray) -> Block:
    """Build one layer.

    Args:
        kind: Which variant.
        config: Sizes and options of the model.
        key: Random key.

    Returns:
        The block.
    """
    mixer_key, feedforward_key = jr.split(key)
    # Rounded up to a multiple of 32: odd widths cost matrix products a good part of
    # their speed.
    d_hidden = math.ceil(config.d_model * config.feedforward_multiple / 32) * 32
    mixer = _build_mixer(kind, config, key=mixer_key)
    return Block(mixer, config.d_model, d_hidden, key=feedforward_key)


def _build_mixer(
    kind: LayerKind, config: ModelConfig, *, key: PRNGKeyArray
) -> AbstractMixer:
    match kind:
        case "mac":
            return MemoryAsContext(config, key=key)
        case "mag":
            return MemoryAsGate(config, key=key)
        case "mal":
            return MemoryAsLayer(config, key=key)
        case "lmm":
            return MemoryAlone(config, key=key)
        case "transformer":
            return AttentionOnly(config, key=key)
