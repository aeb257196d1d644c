"""AdamW with warm-up, cosine decay and clipping, and which parameters it touches."""

from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import PyTree

from titans_eqx.config import OptimizerConfig
from titans_eqx.memory import NeuralMemory


def build_optimizer(
    config: OptimizerConfig, total_steps: int
) -> optax.GradientTransformation:
    """The optimiser of a run.

    Args:
        config: Peak rate, schedule, decay and clipping.
        total_steps: Steps of the run, where the cosine ends.

    Returns:
        An optax transformation for the trainable half of a model (see `trainable`).
    """
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
    """Which leaves the optimiser may change: floating arrays, except frozen memories.

    Args:
        model: Any tree that may hold `NeuralMemory` layers.

    Returns:
        The same tree with True at trainable leaves and False elsewhere.
    """

    def mark(node: Any) -> PyTree:
        marks = jax.tree.map(eqx.is_inexact_array, node)
        if (
            isinstance(node, NeuralMemory)
            and node.rule.boundary.initial_memory == "frozen"
        ):
            frozen = jax.tree.map(lambda _: False, node.initial_weights)
            marks = eqx.tree_at(lambda m: m.initial_weights, marks, frozen)
        return marks

    return jax.tree.map(mark, model, is_leaf=lambda x: isinstance(x, NeuralMemory))


def decayed(model: PyTree) -> PyTree:
    """Which leaves weight decay pulls to zero: the matrices of plain linear maps.

    Norm scales, biases, gates, convolutions, embeddings, persistent tokens and initial
    memories are left alone.

    Args:
        model: The trainable half of a model, or gradients of the same structure.

    Returns:
        The same tree with True at decayed leaves and False elsewhere.
    """

    def mark(path: tuple[Any, ...], _: Any) -> bool:
        names = [getattr(key, "name", "") for key in path]
        is_gate = "gates" in names
        return names[-1] == "weight" and not is_gate and names[-2].endswith(_LINEAR)

    return jax.tree_util.tree_map_with_path(mark, model)


_LINEAR = ("projection", "linear", "output_gate", "head")
