"""AdamW or Muon with warm-up, cosine decay and clipping, and what each of them moves.

Muon makes the momentum of a matrix orthogonal before it is added (Jordan 2024,
https://kellerjordan.github.io/posts/muon). Its steps are scaled to the root mean square
that those of AdamW have (arXiv 2502.16982).
"""

from typing import Any, Final

import equinox as eqx
import jax
import optax
import optax.contrib
from jaxtyping import PyTree

from titans_eqx.config import OptimizerConfig
from titans_eqx.memory.gates import Gates
from titans_eqx.memory.heads import MemoryHeads
from titans_eqx.models import TitansLM

ADAMW_RMS: Final = 0.2  # root mean square of a step of AdamW at learning rate 1


def build_optimizer(
    config: OptimizerConfig, total_steps: int
) -> optax.GradientTransformation:
    """The optimizer of a run, for the trainable half of a model (see `trainable`)."""
    steps = max(total_steps, config.warmup_steps + 1)

    def schedule(peak: float) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0,
            peak_value=peak,
            warmup_steps=config.warmup_steps,
            decay_steps=steps,
            end_value=peak * config.final_fraction,
        )

    inner: optax.GradientTransformation
    match config.name:
        case "adamw":
            inner = optax.adamw(
                schedule(config.learning_rate),
                b1=config.beta1,
                b2=config.beta2,
                weight_decay=config.weight_decay,
                mask=decayed,
            )
        case "muon":
            inner = optax.contrib.muon(
                schedule(config.muon_learning_rate),
                weight_decay=config.weight_decay,
                adam_learning_rate=schedule(config.learning_rate),
                adam_b1=config.beta1,
                adam_b2=config.beta2,
                muon_weight_dimension_numbers=_muon_axes,
                consistent_rms=ADAMW_RMS,
            )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), inner)


def _muon_axes(parameters: PyTree) -> PyTree:
    """Input and output axis of the matrices that Muon moves; None for the rest.

    These are the weights that `decayed` marks, of each layer for itself, but for the
    head: like an embedding it is a table of tokens.
    """
    marks = decayed(parameters)
    if isinstance(parameters, TitansLM) and parameters.head is not None:
        marks = eqx.tree_at(lambda model: model.head.weight, marks, False)
    axes = optax.contrib.MuonDimensionNumbers(reduction_axis=-1, output_axis=-2)
    return jax.tree.map(lambda is_moved: axes if is_moved else None, marks)


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
    norms, biases, convolutions, embeddings, persistent tokens, initial memories. With
    Muon, which decays what it moves, a head of its own is left alone too.

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
