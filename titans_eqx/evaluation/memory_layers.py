"""How much each layer's memory adds to the stream, and where its gates stand."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from titans_eqx.config import RunConfig
from titans_eqx.errors import UserError
from titans_eqx.evaluation.held_out import held_out_examples
from titans_eqx.evaluation.inspection import SYMBOLS, inspect_tokens
from titans_eqx.evaluation.memory_use import without_reads
from titans_eqx.evaluation.plots import plot_curves
from titans_eqx.evaluation.table import Table
from titans_eqx.models import Block, TitansLM
from titans_eqx.models.mixer import AbstractMemoryMixer

Tree = TypeVar("Tree", bound=PyTree[Array])


@dataclass(frozen=True, kw_only=True)
class MemoryLayersSettings:
    """How the memories of the layers are measured."""

    name: ClassVar[str] = "memory-layers"

    length: int | None = None  # tokens in an example; None: data.seq_len of the run
    n_examples: int = 4  # spread evenly over the eval text


def memory_layers(
    model: TitansLM, config: RunConfig, settings: MemoryLayersSettings
) -> Table:
    """Read the eval text of a run, and look at each layer with a memory.

    Returns:
        For each of these layers: the norm of what the reads add to the stream over the
        norm of the stream before them, and the means of the gates, over all tokens,
        heads and memory layers.

    Raises:
        DataError: If the eval text is too short.
        UserError: If the run was trained on a task, or the model has no memory.
    """
    if not config.model.has_memory:
        raise UserError("the model of the run has no memory to be looked at.")
    text = held_out_examples(config.data, settings.length, settings.n_examples)
    rows = jnp.asarray(text.inputs)
    shares = _mean_over_rows(read_shares, rows, model, without_reads(model))
    gates = _mean_over_rows(_gates, rows, model)
    return [
        {"layer": layer, "read over stream": float(share)}
        | {SYMBOLS.get(name, name): float(one) for name, one in gates[layer].items()}
        for layer, share in shares.items()
    ]


def read_shares(
    tokens: Int[Array, " seq"], model: TitansLM, silent_model: TitansLM
) -> dict[int, Float[Array, " seq"]]:
    """By layer with a memory, at each token: |what the reads add| / |the stream|.

    What they add is the difference to the same mixer with reads that are zero, which is
    that of `without_reads(model)`. It is an argument because XLA on CPUs (jax 0.10.2)
    may return garbage for a sum over a product with zeros that it knows as a constant.
    """
    shares: dict[int, Float[Array, " seq"]] = {}
    x = model.embed(tokens)
    pairs = zip(_blocks(model), _blocks(silent_model), strict=True)
    for layer, (block, silent) in enumerate(pairs):
        if isinstance(block.mixer, AbstractMemoryMixer):
            rows = jax.vmap(block.mixer_norm)(x)
            added = block.mixer(rows, None)[0] - silent.mixer(rows, None)[0]
            norms = (jnp.linalg.norm(one, axis=-1) for one in (added, x))
            shares[layer] = jnp.divide(*norms)
        x, _ = block(x, None)
    return shares


def plot_memory_layers(table: Table, title: str, path: Path) -> None:
    """Draw the share of the reads by layer."""
    curve = [(line["layer"], line["read over stream"]) for line in table]
    labels = "layer", "read over stream"
    plot_curves({"model": curve}, *labels, title, path, is_log=False)


def _blocks(model: TitansLM) -> Iterator[Block]:
    """The blocks in order, one for each layer."""
    for stack in model.backbone.unstack().stacks:
        arrays, static = eqx.partition(stack.pattern, eqx.is_array)
        yield from eqx.combine(jax.tree.map(lambda leaf: leaf[0], arrays), static)


def _gates(tokens: Int[Array, " seq"], model: TitansLM) -> dict[int, dict[str, Array]]:
    inspection, _ = inspect_tokens(model, tokens)
    return {layer: stats.gates for layer, stats in inspection.layers.items()}


def _mean_over_rows(
    measure: Callable[..., Tree], rows: Int[Array, "rows seq"], *models: TitansLM
) -> Tree:
    """The mean over all axes of what is measured of each row."""
    in_axes = (0, *[None] * len(models))
    measured = eqx.filter_jit(eqx.filter_vmap(measure, in_axes=in_axes))(rows, *models)
    return jax.tree.map(lambda leaf: leaf.mean(), measured)
