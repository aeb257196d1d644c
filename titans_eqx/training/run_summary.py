"""What a run is, in a few lines, before anything is compiled."""

from collections.abc import Iterable

import equinox as eqx
import jax

from titans_eqx.sharding.capacity import Capacity
from titans_eqx.training.context import TrainContext
from titans_eqx.training.step import assemble


def run_summary(context: TrainContext) -> list[str]:
    """Lines with the sizes of a run, which may be abstract."""
    config = context.config
    n_trained = _count(context.state.parameters)
    n_frozen = _count(context.state.frozen)
    model = assemble(context.state, context.static)
    state = eqx.filter_eval_shape(lambda model: model.init_state(), model)
    state_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    batch_size, lengths = config.train.batch_size, config.data.training_lengths
    cycles, rest = divmod(config.train.steps, len(lengths))
    tokens = batch_size * (cycles * sum(lengths) + sum(lengths[:rest]))
    n_devices = context.mesh.devices.size
    platform = context.mesh.devices.flat[0].platform
    return [
        f"model       {' '.join(config.model.blocks)}, {config.model.n_layers} layers, "
        f"width {config.model.d_model}",
        f"parameters  {n_trained + n_frozen:,} ({n_trained:,} trained, {n_frozen:,} "
        "frozen)",
        f"memory      {context.footprint.describe(Capacity.of(context.mesh))}",
        f"state       {state_bytes:,} bytes per sequence, whatever its length",
        f"step        {_range(batch_size * n for n in lengths)} tokens ({batch_size} "
        f"sequences of {_range(lengths)})",
        f"run         {config.train.steps:,} steps, {tokens:,} tokens",
        context.data.describe(),
        f"devices     {n_devices} ({platform})",
    ]


def _range(values: Iterable[int]) -> str:
    first, *others = sorted(set(values))
    return f"{first:,} to {others[-1]:,}" if others else f"{first:,}"


def _count(tree: object) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))
