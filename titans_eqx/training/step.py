"""One training step as one compiled function."""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from titans_eqx.nn.remat import RematLevel, recomputing
from titans_eqx.nn.tree import select
from titans_eqx.sharding.mesh import BATCH, BATCH_AXES, REPLICATED, AnyMesh
from titans_eqx.sharding.parameters import partition_specs
from titans_eqx.sharding.varying import vary_over
from titans_eqx.training.accumulate import (
    Inputs,
    in_microbatches,
    map_parts,
    most_tokens_at_once,
)
from titans_eqx.training.average import add_to_average
from titans_eqx.training.loss import (
    Batch,
    TokenLoss,
    batch_loss,
    language_model_loss,
)
from titans_eqx.training.state import Static, TrainState, whole_model

LossFn: TypeAlias = Callable[[Any, Batch], tuple[Float[Array, ""], Array]]
"""From a model and a batch to the sum of the losses and the number of scored tokens."""
StreamLossFn: TypeAlias = Callable[
    [Any, Batch, PyTree[Array]], tuple[Float[Array, ""], Array, PyTree[Array]]
]
"""The same with what the rows carry from one batch to the next."""

TrainStep: TypeAlias = jax.stages.Wrapped
"""From a state (donated) and a batch to the next state and the step's metrics."""


class StepMetrics(eqx.Module):
    """What one step reports."""

    loss: Float[Array, ""]  # before the update, mean over the scored tokens
    gradient_norm: Float[Array, ""]  # before clipping
    skipped: Int[Array, ""]  # steps without a finite gradient so far
    spikes: Int[Array, ""]  # steps left out as spikes so far


def build_train_step(
    optimizer: optax.GradientTransformation,
    static: Static,
    mesh: AnyMesh,
    loss_fn: LossFn | StreamLossFn = language_model_loss,
    *,
    accumulate: int = 1,
    remat: RematLevel = "none",
    ema_decay: float = 0.0,
    spike_sigmas: float = 0.0,
    spike_window: int = 100,
) -> TrainStep:
    """Compile-once training step; the batch is split over the mesh.

    A step whose loss or gradient is not finite leaves parameters and optimizer as they
    were and is counted.

    Args:
        optimizer: From `build_optimizer`.
        static: From `init_train_state`.
        mesh: Its devices each take a part of the batch axis of all arrays of a batch.
        loss_fn: Of the model and some rows of a batch. The loss of a step is the sum
            over all rows of its first result, over that of its second. A `StreamLossFn`
            if the state has a `carry`.
        accumulate: Parts of a device's part of a batch, read one after the other. On a
            CPU they are divided further, to one row or at most 512 tokens each, which
            is faster.
        remat: How much the backward pass computes again, see `titans_eqx.nn.remat`.
        ema_decay: Of the average of the parameters, if the state has one.
        spike_sigmas: A step whose loss or gradient norm is further above its mean, in
            standard deviations, changes nothing either; 0 for none.
        spike_window: Steps over which that mean is taken.

    Returns:
        A function as `jax.jit` makes it.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        parameter_specs, frozen_specs = partition_specs(
            (state.parameters, state.frozen), mesh
        )
        (loss, carry), gradient = jax.shard_map(
            jax.value_and_grad(
                _local_loss(state, static, mesh, loss_fn, accumulate, remat),
                has_aux=True,
            ),
            mesh=mesh,
            in_specs=(parameter_specs, frozen_specs, BATCH),
            out_specs=((REPLICATED, BATCH), parameter_specs),
        )(state.parameters, state.frozen, (batch, state.carry))
        norm = optax.tree.norm(gradient)
        updates, optimizer_state = optimizer.update(
            gradient, state.optimizer, state.parameters
        )
        parameters = eqx.apply_updates(state.parameters, updates)
        is_finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        is_spike, statistics = jnp.zeros((), bool), state.statistics
        if spike_sigmas > 0:
            values = jnp.stack([loss, norm.astype(loss.dtype)])
            values = values.astype(statistics.mean.dtype)
            bound = statistics.bound(spike_sigmas, spike_window)
            is_spike = is_finite & jnp.any(values > bound)
            statistics = statistics.add(values, is_finite, spike_sigmas, spike_window)
        skipped = state.skipped + (~is_finite).astype(jnp.int32)
        spikes = state.spikes + is_spike.astype(jnp.int32)
        average = state.average
        if average is not None:
            n_updates = state.step + 1 - skipped - spikes
            average = add_to_average(average, parameters, n_updates, ema_decay)
        parameters, optimizer_state, average = select(
            is_finite & ~is_spike,
            (parameters, optimizer_state, average),
            (state.parameters, state.optimizer, state.average),
        )
        state = TrainState(
            parameters=parameters,
            frozen=state.frozen,
            optimizer=optimizer_state,
            step=state.step + 1,
            skipped=skipped,
            spikes=spikes,
            statistics=statistics,
            average=average,
            carry=select(is_finite, carry, state.carry),
        )
        state = jax.lax.with_sharding_constraint(state, state.shardings(mesh))
        return state, StepMetrics(loss, norm, state.skipped, state.spikes)

    return jax.jit(step, donate_argnums=0)


class SequenceSums(eqx.Module):
    """Sums over the scored tokens of each sequence of a batch."""

    loss: Float[Array, " batch"]  # nats
    n_scored: Int[Array, " batch"]
    n_correct: Int[Array, " batch"]


def build_eval_step(
    static: Static,
    mesh: AnyMesh,
    score: Callable[[Any, Batch], TokenLoss] = batch_loss,
) -> Callable[[TrainState, Batch], SequenceSums]:
    """Scores of a model's predictions; the batch is split over the mesh.

    Args:
        static: From `init_train_state`.
        mesh: Its devices each take a part of the batch.
        score: Of the model and some rows of a batch; on a CPU one row at a time, or as
            many as have 512 tokens, as in a training step.
    """

    def eval_step(state: TrainState, batch: Batch) -> SequenceSums:
        whole = whole_model(state, static, mesh)

        def local_sums(
            parameters: PyTree[Array], frozen: PyTree[Array], batch: Batch
        ) -> SequenceSums:
            def of_rows(inputs: Inputs) -> SequenceSums:
                batch, _ = inputs
                scores = score(whole(parameters, frozen), batch)
                return SequenceSums(
                    loss=jnp.sum(scores.loss, axis=1),
                    n_scored=jnp.sum(batch["mask"], axis=1, dtype=jnp.int32),
                    n_correct=jnp.sum(scores.is_correct, axis=1, dtype=jnp.int32),
                )

            return map_parts(
                of_rows, (batch, None), tokens_at_once=most_tokens_at_once(mesh)
            )

        arrays = (state.parameters, state.frozen)
        return jax.shard_map(
            local_sums,
            mesh=mesh,
            in_specs=(*partition_specs(arrays, mesh), BATCH),
            out_specs=BATCH,
        )(*arrays, batch)

    return jax.jit(eval_step)


def _local_loss(
    state: TrainState,
    static: Static,
    mesh: AnyMesh,
    loss_fn: LossFn | StreamLossFn,
    accumulate: int,
    remat: RematLevel,
) -> Callable[..., tuple[Float[Array, ""], PyTree[Array]]]:
    whole = whole_model(state, static, mesh)

    def whole_sum(
        parameters: PyTree[Array], frozen: PyTree[Array], inputs: Inputs
    ) -> tuple[Float[Array, ""], tuple[Array, PyTree[Array]]]:
        batch, carry = inputs
        arguments = (batch,) if carry is None else (batch, carry)
        with recomputing(remat):
            loss, n_scored, *rest = loss_fn(whole(parameters, frozen), *arguments)
        return loss, (n_scored, rest[0] if rest else None)

    loss_sum = in_microbatches(
        whole_sum, accumulate, tokens_at_once=most_tokens_at_once(mesh)
    )

    def local_loss(
        parameters: PyTree[Array], frozen: PyTree[Array], inputs: Inputs
    ) -> tuple[Float[Array, ""], PyTree[Array]]:
        # Marked as varying here, once, the gradients are summed over devices once, at
        # the very end; left replicated, they would be summed at each use, inside every
        # scan.
        parameters, frozen = vary_over((parameters, frozen), BATCH_AXES)
        loss, (n_scored, carry) = loss_sum(parameters, frozen, inputs)
        # Summed over the mesh before differentiating: the gradient of a replicated
        # parameter then arrives already summed over devices.
        loss, n_scored = jax.lax.psum((loss, n_scored.astype(loss.dtype)), BATCH_AXES)
        return loss / jnp.maximum(n_scored, 1), carry

    return local_loss
