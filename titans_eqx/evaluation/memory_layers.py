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
    shares = _mean_over_rows(read_shares, model, rows)
    gates = _mean_over_rows(_gates, model, rows)
    return [
        {"layer": layer, "read over stream": float(share)}
        | {SYMBOLS.get(name, name): float(one) for name, one in gates[layer].items()}
        for layer, share in shares.items()
    ]


def read_shares(
    model: TitansLM, tokens: Int[Array, " seq"]
) -> dict[int, Float[Array, " seq"]]:
    """By layer with a memory, at each token: |what the reads add| / |the stream|.

    What they add is the difference to the same mixer with reads that are zero.
    """
    shares: dict[int, Float[Array, " seq"]] = {}
    x = model.embed(tokens)
    pairs = zip(_blocks(model), _blocks(without_reads(model)), strict=True)
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
    plot_curves({"model": curve}, "layer", "read over stream", title, path)


def _blocks(model: TitansLM) -> Iterator[Block]:
    """The blocks in order, one for each layer."""
    for stack in model.backbone.unstack().stacks:
        arrays, static = eqx.partition(stack.pattern, eqx.is_array)
        yield from eqx.combine(jax.tree.map(lambda leaf: leaf[0], arrays), static)


def _gates(model: TitansLM, tokens: Int[Array, " seq"]) -> dict[int, dict[str, Array]]:
    inspection, _ = inspect_tokens(model, tokens)
    return {layer: stats.gates for layer, stats in inspection.layers.items()}


def _mean_over_rows(
    measure: Callable[[TitansLM, Int[Array, " seq"]], Tree],
    model: TitansLM,
    rows: Int[Array, "rows seq"],
) -> Tree:
    """The mean over all axes of what is measured of each row."""
    measured = eqx.filter_jit(eqx.filter_vmap(measure, in_axes=(None, 0)))(model, rows)
    return jax.tree.map(lambda leaf: leaf.mean(), measured)
