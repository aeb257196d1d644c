"""What a run is, in a few lines, before anything is compiled."""

from collections.abc import Iterable

import equinox as eqx
import jax
import jax.random as jr

from titans_eqx.models import build_model
from titans_eqx.training.context import Setup


def describe(setup: Setup) -> list[str]:
    """Sizes of a run.

    Args:
        setup: The run; it may be abstract.

    Returns:
        Lines of text.
    """
    config = setup.config
    trained = _count(setup.state.parameters)
    frozen = _count(setup.state.frozen)
    state = eqx.filter_eval_shape(
        lambda: build_model(config.model, key=jr.key(0)).init_state()
    )
    state_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    rows, turns = config.train.batch_size, config.data.training_lengths
    cycles, rest = divmod(config.train.steps, len(turns))
    tokens = rows * (cycles * sum(turns) + sum(turns[:rest]))
    n_devices = setup.mesh.devices.size
    platform = setup.mesh.devices.flat[0].platform
    return [
        f"model       {config.model.variant}, {config.model.n_layers} layers, "
        f"width {config.model.d_model}",
        f"parameters  {trained + frozen:,} ({trained:,} trained, {frozen:,} frozen)",
        f"state       {state_bytes:,} bytes per sequence, whatever its length",
        f"step        {_range(rows * n for n in turns)} tokens ({rows} sequences of "
        f"{_range(turns)})",
        f"run         {config.train.steps:,} steps, {tokens:,} tokens",
        setup.source.describe(),
        f"devices     {n_devices} ({platform})",
    ]


def _range(values: Iterable[int]) -> str:
    first, *others = sorted(set(values))
    return f"{first:,} to {others[-1]:,}" if others else f"{first:,}"


def _count(tree: object) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))
