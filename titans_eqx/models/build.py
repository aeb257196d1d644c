"""From a config to modules: the only place where a name becomes a block."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Key, PRNGKeyArray, PyTree

from titans_eqx.attention import (
    AttentionHeads,
    SegmentAttention,
    SlidingAttention,
    attention_convs,
)
from titans_eqx.config import ModelConfig
from titans_eqx.memory import AbstractMemory, HierarchicalMemory, NeuralMemory
from titans_eqx.models.attention import AttentionOnly
from titans_eqx.models.backbone import Backbone, Block, LayerStack
from titans_eqx.models.gate import MemoryGate
from titans_eqx.models.language_model import TitansLM
from titans_eqx.models.lmm import LongTermMemory
from titans_eqx.models.mac import MemoryAsContext
from titans_eqx.models.mag import MemoryAsGate
from titans_eqx.models.mal import MemoryAsLayer
from titans_eqx.models.mixer import AbstractMixer
from titans_eqx.nn.conv import CausalConv
from titans_eqx.nn.feedforward import SwiGLU


def build_model(config: ModelConfig, *, key: PRNGKeyArray) -> TitansLM:
    """A language model with freshly drawn weights."""
    backbone_key, model_key = jr.split(key)
    return TitansLM(
        build_backbone(config, key=backbone_key),
        d_model=config.d_model,
        vocab_size=config.vocab_size,
        tied_embeddings=config.tied_embeddings,
        key=model_key,
    )


def abstract_model(config: ModelConfig) -> tuple[PyTree, PyTree]:
    """The shapes of the arrays of a model, none of which is made, and the rest of it.

    `eqx.combine` makes a model of arrays of these shapes and the rest.
    """
    return eqx.partition(
        eqx.filter_eval_shape(build_model, config, key=jr.key(0)),
        lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct),
    )


def build_backbone(config: ModelConfig, *, key: PRNGKeyArray) -> Backbone:
    """The blocks of a model, without tokens, with freshly drawn weights."""
    blocks = config.blocks * (config.n_layers // len(config.blocks))
    groups = group_blocks(blocks)
    keys = jr.split(key, len(groups))
    return Backbone(
        tuple(
            _build_stack(pattern, n_repeats, config, key=k)
            for (pattern, n_repeats), k in zip(groups, keys, strict=True)
        ),
        _norm(config),
    )


def group_blocks(names: Sequence[str]) -> list[tuple[tuple[str, ...], int]]:
    """Split a list of blocks into patterns that repeat.

    Returns:
        Pairs of a pattern and its number of repeats: the shortest pattern that repeats
        over the whole depth if there is one, else the runs of equal blocks.
    """
    n_layers = len(names)
    for length in range(1, n_layers // 2 + 1):
        pattern = tuple(names[:length])
        if n_layers % length == 0 and pattern * (n_layers // length) == tuple(names):
            return [(pattern, n_layers // length)]
    runs: list[tuple[tuple[str, ...], int]] = []
    for name in names:
        if runs and runs[-1][0] == (name,):
            runs[-1] = ((name,), runs[-1][1] + 1)
        else:
            runs.append(((name,), 1))
    return runs


def _build_stack(
    pattern: Sequence[str], n_repeats: int, config: ModelConfig, *, key: PRNGKeyArray
) -> LayerStack:
    """Every repeat with weights of its own."""
    keys = jr.split(key, (len(pattern), n_repeats))

    def build(name: str, keys: Key[Array, " repeats"]) -> Block:
        return eqx.filter_vmap(lambda key: _build_block(name, config, key=key))(keys)

    return LayerStack(
        tuple(build(name, ks) for name, ks in zip(pattern, keys, strict=True))
    )


def _build_block(name: str, config: ModelConfig, *, key: PRNGKeyArray) -> Block:
    mixer_key, feedforward_key = jr.split(key)
    # Rounded up to a multiple of 32: odd widths cost matrix products a good part of
    # their speed.
    d_hidden = math.ceil(config.d_model * config.feedforward_multiple / 32) * 32
    return Block(
        mixer_norm=_norm(config),
        mixer=_build_mixer(name, config, key=mixer_key),
        feedforward_norm=_norm(config),
        feedforward=SwiGLU(config.d_model, d_hidden, key=feedforward_key),
    )


def build_memory(config: ModelConfig, *, key: PRNGKeyArray) -> AbstractMemory:
    """The memory of a block: a hierarchy if the config has local chunk lengths."""
    kind = HierarchicalMemory if config.memory.local.chunk_lens else NeuralMemory
    return kind.from_config(config.d_model, config.memory, key=key)


def _build_mixer(name: str, config: ModelConfig, *, key: PRNGKeyArray) -> AbstractMixer:
    memory_key, attention_key = jr.split(key)
    if name == "transformer":
        return AttentionOnly(_sliding_attention(config, key=attention_key))

    memory = build_memory(config, key=memory_key)
    persistent_in_memory = config.attention.persistent_in_memory
    match name:
        case "lmm":
            return LongTermMemory(memory)
        case "mac":
            return MemoryAsContext(
                memory,
                SegmentAttention(
                    *_attention(config, key=attention_key),
                    config.attention.segment_len,
                ),
                _norm(config),
                MemoryGate(config.d_model, config.gate),
            )
        case "mag":
            return MemoryAsGate(
                memory,
                _sliding_attention(config, key=attention_key),
                MemoryGate(config.d_model, config.gate),
                persistent_in_memory,
            )
        case "mal":
            return MemoryAsLayer(
                memory,
                _norm(config),
                _sliding_attention(config, key=attention_key),
                persistent_in_memory,
            )
        case _:
            raise ValueError(f"there is no block {name!r}.")


def _sliding_attention(config: ModelConfig, *, key: PRNGKeyArray) -> SlidingAttention:
    return SlidingAttention(*_attention(config, key=key), config.attention.window)


def _attention(
    config: ModelConfig, *, key: PRNGKeyArray
) -> tuple[AttentionHeads, tuple[CausalConv, ...]]:
    heads_key, conv_key = jr.split(key)
    options = config.attention
    heads = AttentionHeads(
        config.d_model,
        n_heads=options.n_heads,
        n_persistent=options.n_persistent,
        rope_base=options.rope_base,
        key=heads_key,
    )
    convs = attention_convs(
        config.d_model, options.kernel_size, options.key_delay, key=conv_key
    )
    return heads, convs


def _norm(config: ModelConfig) -> eqx.nn.RMSNorm:
    return eqx.nn.RMSNorm(config.d_model, use_bias=False)
