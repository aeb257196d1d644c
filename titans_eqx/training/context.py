"""Everything a run needs, built from its config before anything is compiled."""

import functools
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import equinox as eqx
import jax
import jax.random as jr
import optax
from jax.sharding import Mesh

from titans_eqx.config import RunConfig
from titans_eqx.data.dataset import TaskData, TextData, open_dataset
from titans_eqx.models import build_model
from titans_eqx.sharding.capacity import Capacity
from titans_eqx.sharding.mesh import AnyMesh, build_mesh, is_on_cpu, plan_mesh
from titans_eqx.sharding.parameters import placed_shapes
from titans_eqx.training.carry import init_carry, stream_loss
from titans_eqx.training.footprint import (
    Footprint,
    footprint,
    least_footprint,
)
from titans_eqx.training.loss import language_model_loss
from titans_eqx.training.optimizer import build_optimizer
from titans_eqx.training.state import Static, TrainState, init_train_state
from titans_eqx.training.step import (
    LossFn,
    StreamLossFn,
    TrainStep,
    build_train_step,
)

# A program that draws each array of a model is large and runs once. Measured: compiled
# in 5 s instead of 20 s of CPU time for configs/mac.toml.
_RUN_ONCE: Final[dict[str, str | bool]] = {"xla_backend_optimization_level": "0"}


@dataclass(frozen=True, kw_only=True)
class TrainContext:
    """A run before its first step."""

    config: RunConfig
    data: TextData | TaskData
    mesh: AnyMesh  # of devices, unless built abstractly
    optimizer: optax.GradientTransformation
    static: Static
    train_step: TrainStep
    state: TrainState  # its shapes, and how they are spread over the mesh

    @classmethod
    def build(
        cls,
        config: RunConfig,
        *,
        data: TextData | TaskData | None = None,
        mesh: AnyMesh | None = None,
        abstract: bool = False,
    ) -> "TrainContext":
        """Open the data, find the devices and see that the run fits.

        Args:
            config: The run.
            data: Of the run, if it is open already.
            mesh: Of the run, if it is known already.
            abstract: Only to look at the run; the mesh may then be of more devices than
                there are.

        Raises:
            UserError: If the config asks for data, devices or memory that is not there.
        """
        if data is None:
            data = open_dataset(config)
        if mesh is None:
            planned = plan_mesh(config.mesh.data, config.mesh.fsdp)
            mesh = planned if abstract and planned else run_mesh(config)
        optimizer = build_optimizer(config.optimizer, config.train.steps)

        state, static = eqx.filter_eval_shape(init_run_state, config, optimizer)
        state = placed_shapes(state, state.shardings(mesh))
        context = cls(
            config=config,
            data=data,
            mesh=mesh,
            optimizer=optimizer,
            static=static,
            train_step=run_train_step(config, optimizer, static, mesh),
            state=state,
        )
        if abstract:
            return context
        assert isinstance(mesh, Mesh), "nothing runs on devices that are not here"
        capacity = Capacity.of(mesh)
        # At once, where tracing takes long.
        least_footprint(state, mesh).require(capacity)
        context.footprint.require(capacity)
        return context

    def first_state(self) -> Future[TrainState]:
        """Draw the weights, for a run that goes on from no checkpoint.

        In another thread, which compiles it while this one compiles the step.
        """
        assert isinstance(self.mesh, Mesh), "nothing runs on devices that are not here"
        # As one program: array by array would take many small ones. Traced here, since
        # a thread has its own settings of jax, such as those of `jax.enable_x64`.
        draw = jax.jit(
            lambda: init_run_state(self.config, self.optimizer)[0],
            out_shardings=self.state.shardings(self.mesh),
        ).lower()
        options = _RUN_ONCE if is_on_cpu(self.mesh) else None
        thread = ThreadPoolExecutor(max_workers=1)
        drawn = thread.submit(lambda: draw.compile(options)())
        thread.shutdown(wait=False)  # it ends when that is done
        return drawn

    @functools.cached_property
    def footprint(self) -> Footprint:
        """What a step needs of a device's memory; tracing it takes a moment."""
        return footprint(self.train_step, self.state, self.config, self.mesh)


def run_mesh(config: RunConfig) -> Mesh:
    """The devices of a run.

    Raises:
        MeshError: If they are not there, or do not divide the batch or the width.
    """
    return build_mesh(
        config.train.part_size,
        data=config.mesh.data,
        fsdp=config.mesh.fsdp,
        width=config.model.d_model,
    )


def init_run_state(
    config: RunConfig, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Static]:
    """The state of a run before its first step, see `init_train_state`."""
    train, carry = config.train, None
    model = build_model(config.model, key=jr.key(train.seed))
    if train.carry_state:
        carry = init_carry(model, train.batch_size, train.precision)
    averages = train.ema_decay > 0
    return init_train_state(model, optimizer, averages=averages, carry=carry)


def run_train_step(
    config: RunConfig,
    optimizer: optax.GradientTransformation,
    static: Static,
    mesh: AnyMesh,
) -> TrainStep:
    """The step of a run, as its config wants it; see `build_train_step`."""
    return build_train_step(
        optimizer,
        static,
        mesh,
        _loss_fn(config),
        accumulate=config.train.accumulate,
        remat=config.train.remat,
        ema_decay=config.train.ema_decay,
        spike_sigmas=config.optimizer.spike_sigmas,
        spike_window=config.optimizer.spike_window,
    )


def _loss_fn(config: RunConfig) -> LossFn | StreamLossFn:
    train = config.train
    options: dict[str, Any] = {
        "block_len": train.loss_block,
        "precision": train.precision,
    }
    if train.carry_state:
        return functools.partial(stream_loss, **options)
    return functools.partial(language_model_loss, **options)
