"""A whole training step: running it, and compiling it."""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from scripts.benchmark.case import Case
from scripts.benchmark.program import TRAINING_PASSES, Program, count_parameters
from titans_eqx.config import RunConfig
from titans_eqx.models import build_model
from titans_eqx.sharding.mesh import batch_sharding, build_mesh, replicated
from titans_eqx.training.optimizer import build_optimizer
from titans_eqx.training.step import (
    Rows,
    Statics,
    TrainState,
    build_train_step,
    init_train_state,
)


def train_program(case: Case) -> Program:
    """The step of `scripts/train.py` on one batch of random tokens.

    Args:
        case: Of the kind `train`.

    Returns:
        The program; a run is one step, and steps go on from each other.
    """
    config = case.config
    mesh = build_mesh(config.mesh.data, config.train.batch_size)
    optimizer = build_optimizer(config.optimizer, config.train.steps)
    build = partial(_build_state, config)
    statics = eqx.filter_eval_shape(build)[1]
    state = jax.jit(lambda: build()[0], out_shardings=replicated(mesh))()
    rows = jax.device_put(
        random_rows(jr.key(config.train.seed), config), batch_sharding(mesh)
    )
    size = config.train.batch_size, config.data.seq_len
    shapes = jax.eval_shape(lambda: (state.parameters, state.frozen))
    step = build_train_step(optimizer, statics, mesh)
    states = [state]

    def run() -> PyTree:
        # The step takes over the memory of the state that it is given.
        state, metrics = step(states.pop(), rows)
        states.append(state)
        return state, metrics

    return Program(
        run=run,
        n_tokens=math.prod(size),
        n_parameters=count_parameters(shapes),
        forward=partial(_logits, statics),
        forward_inputs=(*shapes, jax.ShapeDtypeStruct(size, jnp.int32)),
        passes=TRAINING_PASSES,
    )


def compile_program(case: Case) -> Program:
    """What stands before the first step: tracing and compiling it.

    Args:
        case: Of the kind `compile`.

    Returns:
        The program; only its first run tells the time from a cold start.
    """
    config = case.config
    jax.config.update("jax_enable_compilation_cache", False)
    mesh = build_mesh(config.mesh.data, config.train.batch_size)
    optimizer = build_optimizer(config.optimizer, config.train.steps)
    state, statics = eqx.filter_eval_shape(partial(_build_state, config))
    rows = jax.eval_shape(lambda: random_rows(jr.key(0), config))

    def placed(sharding: jax.sharding.Sharding, tree: PyTree) -> PyTree:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    inputs = placed(replicated(mesh), state), placed(batch_sharding(mesh), rows)

    def run() -> None:
        build_train_step(optimizer, statics, mesh).lower(*inputs).compile()

    return Program(
        run=run,
        n_tokens=config.train.batch_size * config.data.seq_len,
        n_parameters=count_parameters((state.parameters, state.frozen)),
        is_run_warm=False,
    )


def random_rows(key: PRNGKeyArray, config: RunConfig) -> Rows:
    """A batch of random tokens and targets, as the training step takes them.

    Args:
        key: Random key.
        config: Sizes.

    Returns:
        The batch, int32.
    """
    shape = (config.train.batch_size, 2, config.data.seq_len)
    return jr.randint(key, shape, 0, config.model.vocab_size, jnp.int32)


def _build_state(config: RunConfig) -> tuple[TrainState, Statics]:
    model = build_model(config.model, key=jr.key(config.train.seed))
    optimizer = build_optimizer(config.optimizer, config.train.steps)
    return init_train_state(model, optimizer)


def _logits(
    statics: Statics,
    parameters: PyTree[Array],
    frozen: PyTree[Array],
    tokens: Int[Array, "batch seq"],
) -> Float[Array, "batch seq vocab"]:
    model = eqx.combine(parameters, frozen, statics)
    return jax.vmap(lambda row: model(row)[0])(tokens)
