"""The memory layer alone, on a batch that is spread over the devices as in training."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from scripts.benchmark.case import Case
from scripts.benchmark.program import (
    FORWARD_PASSES,
    TRAINING_PASSES,
    Program,
    count_parameters,
)
from titans_eqx.memory import NeuralMemory
from titans_eqx.sharding.mesh import (
    BATCH,
    DATA_AXIS,
    REPLICATED,
    batch_sharding,
    build_mesh,
    replicated,
)
from titans_eqx.training.optimizer import trainable

_Local: TypeAlias = Callable[[PyTree, PyTree, Array], Array]


def memory_program(case: Case) -> Program:
    """The layer on random tokens: forward, or also the gradient of the outputs' sum.

    The gradient is taken by the trained parameters and by the tokens, as a layer inside
    a model needs it.

    Args:
        case: Of the kind `memory_forward` or `memory_gradient`.

    Returns:
        The program; a run reads all tokens of the batch.
    """
    model, n_rows, n_tokens = (
        case.config.model,
        case.config.train.batch_size,
        case.config.data.seq_len,
    )
    mesh = build_mesh(case.config.mesh.data, n_rows)
    layer_key, token_key = jr.split(jr.key(case.config.train.seed))

    def build() -> tuple[PyTree[Array], PyTree]:
        layer = NeuralMemory(model.d_model, model.memory, key=layer_key)
        return eqx.partition(layer, eqx.is_array)

    # Traced rather than run, as in training: one program in place of many small ones.
    statics = eqx.filter_eval_shape(build)[1]
    arrays = jax.jit(lambda: build()[0], out_shardings=replicated(mesh))()
    parameters, frozen = eqx.partition(arrays, trainable(arrays))
    draw = jax.jit(jr.normal, static_argnums=1, out_shardings=batch_sharding(mesh))
    x = draw(token_key, (n_rows, n_tokens, model.d_model))

    read_rows = partial(_read_rows, statics)
    is_forward = case.kind == "memory_forward"
    if is_forward:
        local, out_specs = partial(_varying, read_rows), BATCH
    else:
        total = partial(_varying, partial(_total, read_rows))
        local = jax.grad(total, argnums=(0, 2))
        out_specs = (REPLICATED, BATCH)
    in_specs = (REPLICATED, REPLICATED, BATCH)
    compiled = jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
    )
    return Program(
        run=lambda: compiled(parameters, frozen, x),
        n_tokens=n_rows * n_tokens,
        n_parameters=count_parameters(arrays),
        forward=read_rows,
        forward_inputs=(parameters, frozen, x),
        passes=FORWARD_PASSES if is_forward else TRAINING_PASSES,
    )


def _read_rows(
    statics: PyTree,
    parameters: PyTree[Array],
    frozen: PyTree[Array],
    x: Float[Array, "batch seq d_model"],
) -> Float[Array, "batch seq d_model"]:
    layer = eqx.combine(parameters, frozen, statics)
    return jax.vmap(lambda row: layer(row)[0])(x)


def _total(
    read_rows: _Local,
    parameters: PyTree[Array],
    frozen: PyTree[Array],
    x: Float[Array, "batch seq d_model"],
) -> Float[Array, ""]:
    return jax.lax.psum(jnp.sum(read_rows(parameters, frozen, x)), DATA_AXIS)


def _varying(
    function: _Local,
    parameters: PyTree[Array],
    frozen: PyTree[Array],
    x: Float[Array, "batch seq d_model"],
) -> Float[Array, "..."]:
    # As in training: gradients are then summed over the devices once, at the end.
    parameters, frozen = jax.lax.pcast((parameters, frozen), DATA_AXIS, to="varying")
    return function(parameters, frozen, x)
