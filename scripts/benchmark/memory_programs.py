"""The memory layer alone, on a batch that is spread over the devices as in training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from scripts.benchmark.case import Case
from scripts.benchmark.isolation import BenchmarkError
from scripts.benchmark.program import (
    FORWARD_PASSES,
    Program,
    count_parameters,
)
from titans_eqx.models.build import build_memory
from titans_eqx.nn.vmap import vmap
from titans_eqx.sharding.mesh import (
    BATCH,
    BATCH_AXES,
    REPLICATED,
    batch_sharding,
    build_mesh,
    replicated,
)
from titans_eqx.sharding.varying import vary_over
from titans_eqx.training.optimizer import trainable
from titans_eqx.training.throughput import TRAINING_PASSES


def memory_program(case: Case) -> Program:
    """The layer on random tokens: forward, or also the gradient of the outputs' sum.

    The gradient is taken by the trained parameters and by the tokens, as a layer inside
    a model needs it. A run reads all tokens of the batch.
    """
    model, batch_size = case.config.model, case.config.train.batch_size
    if case.config.mesh.fsdp != 1:
        raise BenchmarkError("mesh.fsdp has no effect on a layer alone; leave it out.")
    mesh = build_mesh(batch_size, data=case.config.mesh.data)
    layer_key, token_key = jr.split(jr.key(case.config.train.seed))

    def build() -> tuple[PyTree[Array], PyTree]:
        return eqx.partition(build_memory(model, key=layer_key), eqx.is_array)

    # Traced rather than run, as in training: one program in place of many small ones.
    static = eqx.filter_eval_shape(build)[1]
    arrays = jax.jit(lambda: build()[0], out_shardings=replicated(mesh))()
    parameters, frozen = eqx.partition(arrays, trainable(arrays))
    draw = jax.jit(jr.normal, static_argnums=1, out_shardings=batch_sharding(mesh))
    x = draw(token_key, (batch_size, case.length, model.d_model))

    def read_batch(
        parameters: PyTree[Array],
        frozen: PyTree[Array],
        x: Float[Array, "batch seq d_model"],
    ) -> Float[Array, "batch seq d_model"]:
        layer = eqx.combine(parameters, frozen, static)
        return vmap(lambda sequence: layer(sequence)[0])(x)

    def forward(parameters: PyTree[Array], frozen: PyTree[Array], x: Array) -> Array:
        # As in training: gradients are then summed over the devices once, at the end.
        parameters, frozen = vary_over((parameters, frozen), BATCH_AXES)
        return read_batch(parameters, frozen, x)

    def total(parameters: PyTree[Array], frozen: PyTree[Array], x: Array) -> Array:
        return jax.lax.psum(jnp.sum(forward(parameters, frozen, x)), BATCH_AXES)

    is_forward = case.kind == "memory_forward"
    run = jax.jit(
        jax.shard_map(
            forward if is_forward else jax.grad(total, argnums=(0, 2)),
            mesh=mesh,
            in_specs=(REPLICATED, REPLICATED, BATCH),
            out_specs=BATCH if is_forward else (REPLICATED, BATCH),
        )
    )
    return Program(
        run=lambda: run(parameters, frozen, x),
        n_tokens=batch_size * case.length,
        n_parameters=count_parameters(arrays),
        forward=read_batch,
        forward_inputs=(parameters, frozen, x),
        passes=FORWARD_PASSES if is_forward else TRAINING_PASSES,
    )
