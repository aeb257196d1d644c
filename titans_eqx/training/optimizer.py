"""AdamW with warm-up, cosine decay and clipping, and which parameters it touches."""

from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import PyTree

from titans_eqx.config import OptimizerConfig
from titans_eqx.memory.gates import Gates
from titans_eqx.memory.heads import MemoryHeads


def build_optimizer(
    config: OptimizerConfig, total_steps: int
) -> optax.GradientTransformation:
    """The optimizer of a run, for the trainable half of a model (see `trainable`)."""
    steps = max(total_steps, config.warmup_steps + 1)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=steps,
        end_value=config.learning_rate * config.final_fraction,
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule,
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=decayed,
        ),
    )


def trainable(model: PyTree) -> PyTree:
    """True at the leaves to be trained: floating arrays, except frozen memories."""

    def mark(node: Any) -> PyTree:
        marks = jax.tree.map(eqx.is_inexact_array, node)
        if (
            isinstance(node, MemoryHeads)
            and node.rule.outer_gradient.initial_memory == "frozen"
        ):
            frozen = jax.tree.map(lambda _: False, node.initial_weights)
            marks = eqx.tree_at(lambda m: m.initial_weights, marks, frozen)
        return marks

    return jax.tree.map(mark, model, is_leaf=lambda x: isinstance(x, MemoryHeads))


def decayed(parameters: PyTree) -> PyTree:
    """True at the leaves that weight decay pulls to zero: weights of `eqx.nn.Linear`.

    The linear maps of the memory's gates are left alone, and so is everything else:
    norms, biases, convolutions, embeddings, persistent tokens, initial memories.

    Args:
        parameters: The trainable half of a model (None elsewhere), or gradients of it.
    """

    def mark(node: Any) -> PyTree:
        marks = jax.tree.map(lambda _: False, node)
        if isinstance(node, eqx.nn.Linear) and node.weight is not None:
            marks = eqx.tree_at(lambda linear: linear.weight, marks, True)
        return marks

    return jax.tree.map(
        mark, parameters, is_leaf=lambda x: isinstance(x, eqx.nn.Linear | Gates)
    )
