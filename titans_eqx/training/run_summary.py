"""What a run is, in a few lines, before anything is compiled."""

from collections.abc import Iterable

import equinox as eqx
from jax.sharding import Mesh

from titans_eqx.nn.tree import n_bytes, n_elements
from titans_eqx.sharding.capacity import Capacity
from titans_eqx.sharding.mesh import AnyMesh
from titans_eqx.training.context import TrainContext
from titans_eqx.training.footprint import spell_bytes
from titans_eqx.training.state import assemble


def run_summary(context: TrainContext) -> list[str]:
    """Lines with the sizes of a run, which may be abstract."""
    config = context.config
    n_trained = n_elements(context.state.parameters)
    n_frozen = n_elements(context.state.frozen)
    model = assemble(context.state, context.static)
    state = eqx.filter_eval_shape(lambda model: model.init_state(), model)
    batch_size, lengths = config.train.batch_size, config.data.training_lengths
    tokens = config.n_tokens(config.train.steps)
    return [
        f"model       {' '.join(config.model.blocks)}, {config.model.n_layers} layers, "
        f"width {config.model.d_model}",
        f"parameters  {n_trained + n_frozen:,} ({n_trained:,} trained, {n_frozen:,} "
        "frozen)",
        f"memory      {_memory(context)}",
        f"state       {n_bytes(state):,} bytes per sequence, whatever its length",
        f"step        {_range(batch_size * n for n in lengths)} tokens ({batch_size} "
        f"sequences of {_range(lengths)})",
        f"run         {config.train.steps:,} steps, {tokens:,} tokens",
        context.data.describe(),
        f"devices     {_devices(context.mesh)}",
    ]


def _memory(context: TrainContext) -> str:
    needed = context.footprint
    if isinstance(context.mesh, Mesh):
        return needed.describe(Capacity.of(context.mesh))
    return f"{spell_bytes(needed.total)} on each device ({needed})"


def _devices(mesh: AnyMesh) -> str:
    here = mesh.devices.flat[0].platform if isinstance(mesh, Mesh) else "not here"
    sizes = " x ".join(f"{name} {n}" for name, n in mesh.shape.items())
    return f"{mesh.size} ({here}; {sizes})"


def _range(values: Iterable[int]) -> str:
    first, *others = sorted(set(values))
    return f"{first:,} to {others[-1]:,}" if others else f"{first:,}"
