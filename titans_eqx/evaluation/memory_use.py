"""Whether a trained model uses its memory: what it costs to take it away.

Each time all else stays as it was trained, so a model that has learned to do without
its memory loses nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from titans_eqx.config import ModelConfig, RunConfig
from titans_eqx.errors import UserError
from titans_eqx.evaluation.held_out import held_out_examples
from titans_eqx.evaluation.plots import plot_curves
from titans_eqx.evaluation.scorer import Scorer
from titans_eqx.evaluation.table import (
    Table,
    doubling_ranges,
    paired_columns,
    ratio_per_row,
)
from titans_eqx.memory.read_out import ReadOut
from titans_eqx.models import TitansLM
from titans_eqx.models.build import abstract_model

AS_TRAINED: Final = "as trained"


@dataclass(frozen=True, kw_only=True)
class MemoryUseSettings:
    """How the use of the memory is measured."""

    name: ClassVar[str] = "memory-use"

    length: int | None = None  # tokens in an example; None: data.seq_len of the run
    reset_every: int = 256  # tokens after which a memory starts anew
    n_examples: int = 64  # spread evenly over the eval text
    batch_size: int = 8  # examples read at once


ScorerOf: TypeAlias = Callable[[TitansLM, int], Scorer]
"""Of a model and the number of tokens after which it forgets, 0 for never."""


def memory_use(
    scorer_of: ScorerOf, model: TitansLM, config: RunConfig, settings: MemoryUseSettings
) -> Table:
    """Score the eval text of a run with and without the memory.

    Returns:
        For the model as trained, with reads that are zero, without writes, and with
        memories that start anew again and again, and for ranges of positions: bits per
        byte, and how much worse than as trained, with a 95 % interval over examples.
        A range without text is left out.

    Raises:
        DataError: If the eval text is too short.
        UserError: If the run was trained on a task, the model has no memory, or it
            would start anew inside a chunk or segment.
    """
    text = held_out_examples(config.data, settings.length, settings.n_examples)
    if not config.model.has_memory:
        raise UserError("the model of the run has no memory whose use could be found.")
    _check_reset(config.model, settings.reset_every)
    variants = {
        AS_TRAINED: (model, 0),
        "reads are zero": (without_reads(model), 0),
        "no writes": (without_writes(model, config.model), 0),
        f"new every {settings.reset_every}": (model, settings.reset_every),
    }
    losses = {
        name: np.stack([one.loss for one in scorer_of(*variant)(text.examples)])
        for name, variant in variants.items()
    }
    length = losses[AS_TRAINED].shape[1]
    places = [
        (start, stop)
        for start, stop in (*doubling_ranges(length), (0, length))
        if text.n_bytes[:, start:stop].any()
    ]
    table: Table = []
    for name, own in losses.items():
        for start, stop in places:
            n_bytes = text.n_bytes[:, start:stop].sum(axis=1)
            trained, changed = (
                ratio_per_row(all_[:, start:stop].sum(axis=1), n_bytes) / math.log(2)
                for all_ in (losses[AS_TRAINED], own)
            )
            table.append(
                {
                    "memory": name,
                    "from": start,
                    "to": stop,
                    "bits per byte": float(changed.mean()),
                }
                | paired_columns(trained, changed)
            )
    return table


def plot_memory_use(table: Table, title: str, path: Path) -> None:
    """Draw what is lost without the memory, by position."""
    names = {line["memory"]: None for line in table if line["memory"] != AS_TRAINED}
    curves = {}
    for name in names:
        *parts, _ = (line for line in table if line["memory"] == name)
        curves[name] = [(line["to"], line["difference"]) for line in parts]
    plot_curves(curves, "position", "bits per byte lost", title, path)


def without_reads(model: TitansLM) -> TitansLM:
    """The model with memories that answer zero."""

    def silence(node: Any) -> Any:
        if not isinstance(node, ReadOut):
            return node
        weight = jnp.zeros_like(node.projection.weight)
        return eqx.tree_at(lambda one: one.projection.weight, node, weight)

    return jax.tree.map(silence, model, is_leaf=lambda x: isinstance(x, ReadOut))


def without_writes(model: TitansLM, config: ModelConfig) -> TitansLM:
    """The model with memories that stay as a sequence starts with them."""
    changes = {"memory": config.memory.model_copy(update={"off": True})}
    shapes, static = abstract_model(config.model_copy(update=changes))
    # The same parameters in the same order; only what has none differs.
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_array))
    structure = jax.tree.structure(shapes)
    return eqx.combine(jax.tree.unflatten(structure, leaves), static)


def _check_reset(config: ModelConfig, reset_every: int) -> None:
    unit = config.memory.unit
    if "mac" in config.blocks:
        unit = config.attention.segment_len
    if reset_every % unit:
        raise UserError(
            f"a memory can start anew after a multiple of {unit} tokens of this model, "
            f"got {reset_every}. Use such a number."
        )
