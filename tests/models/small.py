"""Small models whose parameters are all far from their starting values."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PyTree

from titans_eqx.config import AttentionConfig, MemoryConfig, ModelConfig
from titans_eqx.models import Backbone, Block, TitansLM, build_backbone, build_model

D_MODEL = 8
VOCAB = 12
MEMORY = {"n_heads": 2, "depth": 2, "expansion": 2, "chunk_len": 2, "kernel_size": 3}
ATTENTION = {"n_heads": 2, "segment_len": 4, "window": 3, "n_persistent": 2}


def small_config(
    *, memory: dict | None = None, attention: dict | None = None, **changes
) -> ModelConfig:
    """Two layers of width 8; chunks of 2, segments of 4 and windows of 3 tokens."""
    return ModelConfig(
        **{"d_model": D_MODEL, "n_layers": 2, "vocab_size": VOCAB, **changes},
        memory=MemoryConfig(**{**MEMORY, "max_learning_rate": 0.5, **(memory or {})}),
        attention=AttentionConfig(**{**ATTENTION, **(attention or {})}),
    )


def jittered(module: PyTree) -> PyTree:
    """The module with noise on every parameter, so that no scale is 1, no gate 0."""
    rng = np.random.default_rng(0)

    def jitter(leaf: Any) -> Any:
        if not eqx.is_inexact_array(leaf):
            return leaf
        noise = 0.2 * rng.normal(size=leaf.shape)
        # Added in NumPy, which compiles nothing.
        return jnp.asarray((np.asarray(leaf) + noise).astype(leaf.dtype))

    return jax.tree.map(jitter, module)


def small_model(config: ModelConfig) -> TitansLM:
    """A model whose parameters are all away from their starting values."""
    # Not jitted: one program for each config would take seconds, and the small ones of
    # each operation are shared by all tests.
    return jittered(build_model(config, key=jr.key(0)))


def blocks_of(backbone: Backbone) -> list[Block]:
    """All blocks, first to last, each with arrays of its own."""
    return [
        jax.tree.map(lambda x, n=n: x[n] if eqx.is_array(x) else x, block)
        for stack in backbone.stacks
        for n in range(stack.n_repeats)
        for block in stack.pattern
    ]


def small_block(config: ModelConfig) -> Block:
    """A block of the config's pattern, its parameters as in `small_model`."""
    config = config.model_copy(update={"n_layers": len(config.blocks)})
    backbone = build_backbone(config, key=jr.key(0))
    return jittered(blocks_of(backbone)[0])


def tokens(n: int, *, seed: int = 0) -> Array:
    """Random token ids."""
    return jnp.asarray(np.random.default_rng(seed).integers(VOCAB, size=n), jnp.int32)


def stream(n: int, *, seed: int = 0) -> Array:
    """Random features of the width of the model."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, D_MODEL)))
