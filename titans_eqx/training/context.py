"""Everything a run needs, built from its config before anything is compiled."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.random as jr
import optax
from jax.sharding import Mesh

from titans_eqx.config import RunConfig
from titans_eqx.models import build_model
from titans_eqx.sharding.mesh import build_mesh, replicated
from titans_eqx.training.optimizer import build_optimizer
from titans_eqx.data.dataset import Source, open_source
from titans_eqx.training.step import Statics, TrainState, init_train_state


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A run before its first step."""

    config: RunConfig
    source: Source
    mesh: Mesh
    optimizer: optax.GradientTransformation
    statics: Statics
    state: TrainState  # arrays, or their shapes if the setup is abstract


def prepare(config: RunConfig, *, abstract: bool = False) -> Setup:
    """Build everything a run needs.

    Args:
        config: The run.
        abstract: Compute shapes only and allocate no model.

    Returns:
        The run before its first step, its state replicated over the mesh.

    Raises:
        UserError: If the config asks for data or devices that are not there.
    """
    source = open_source(config)
    mesh = build_mesh(config.mesh.data, config.train.batch_size)
    optimizer = build_optimizer(config.optimizer, config.train.steps)

    def build() -> tuple[TrainState, Statics]:
        model = build_model(config.model, key=jr.key(config.train.seed))
        return init_train_state(model, optimizer)

    # Traced rather than run: drawing the weights op by op would take many small
    # programs.
    state, statics = eqx.filter_eval_shape(build)
    if not abstract:
        draw = jax.jit(lambda: build()[0], out_shardings=replicated(mesh))
        state = draw()
    return Setup(
        config=config,
        source=source,
        mesh=mesh,
        optimizer=optimizer,
        statics=statics,
        state=state,
    )
