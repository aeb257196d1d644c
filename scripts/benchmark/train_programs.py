"""A whole training step: running it, and compiling it."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PyTree

from scripts.benchmark.case import Case
from scripts.benchmark.program import Program, count_parameters
from titans_eqx.config import RunConfig
from titans_eqx.sharding.mesh import batch_sharding
from titans_eqx.sharding.parameters import placed_shapes
from titans_eqx.training.context import init_run_state, run_mesh, run_train_step
from titans_eqx.training.loss import Batch
from titans_eqx.training.optimizer import build_optimizer
from titans_eqx.training.state import TrainState
from titans_eqx.training.throughput import TRAINING_PASSES


def train_program(case: Case) -> Program:
    """The step of `scripts/train.py` on one batch of random tokens.

    A run is one step, or for the kind `compile` tracing and compiling it, of which only
    the first is a cold start.
    """
    config = case.config
    mesh = run_mesh(config)
    optimizer = build_optimizer(config.optimizer, config.train.steps)

    def logits(
        parameters: PyTree[Array],
        frozen: PyTree[Array],
        tokens: Int[Array, "batch seq"],
    ) -> Float[Array, "batch seq vocab"]:
        model = eqx.combine(parameters, frozen, static)
        return jax.vmap(lambda sequence: model(sequence)[0])(tokens)

    state, static = eqx.filter_eval_shape(init_run_state, config, optimizer)
    step = run_train_step(config, optimizer, static, mesh)
    batch = jax.eval_shape(lambda: random_batch(config))
    is_compilation = case.kind == "compile"
    if is_compilation:
        jax.config.update("jax_enable_compilation_cache", False)
        placed_state = placed_shapes(state, state.shardings(mesh))
        placed_batch = placed_shapes(batch, dict.fromkeys(batch, batch_sharding(mesh)))

        def run() -> None:
            step.lower(placed_state, placed_batch).compile()
    else:
        run = _steps(
            step,
            jax.jit(
                lambda: init_run_state(config, optimizer)[0],
                out_shardings=state.shardings(mesh),
            )(),
            jax.device_put(random_batch(config), batch_sharding(mesh)),
        )
    return Program(
        run=run,
        n_tokens=batch["inputs"].size,
        n_parameters=count_parameters((state.parameters, state.frozen)),
        forward=logits,
        forward_inputs=(state.parameters, state.frozen, batch["inputs"]),
        passes=TRAINING_PASSES,
        dtype=jnp.bfloat16 if config.train.precision == "mixed" else jnp.float32,
        is_run_warm=not is_compilation,
    )


def random_batch(config: RunConfig) -> Batch:
    """Random tokens and targets, all of them scored."""
    shape = (config.train.batch_size, config.data.seq_len)
    inputs, targets = jr.randint(
        jr.key(config.train.seed), (2, *shape), 0, config.model.vocab_size, jnp.int32
    )
    return {"inputs": inputs, "targets": targets, "mask": jnp.ones(shape, bool)}


def _steps(step: Callable, state: TrainState, batch: Batch) -> Callable[[], PyTree]:
    """Steps that go on from each other."""
    states = [state]

    def run() -> PyTree:
        # The step takes over the memory of the state that it is given.
        state, metrics = step(states.pop(), batch)
        states.append(state)
        return state, metrics

    return run
