"""One training step as one compiled function."""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree

from titans_eqx.models import TitansLM
from titans_eqx.training.loss import score_rows
from titans_eqx.sharding.mesh import BATCH, DATA_AXIS, REPLICATED
from titans_eqx.training.optimizer import trainable


class TrainState(eqx.Module):
    """All that training changes; arrays only, so a checkpoint holds all of it."""

    parameters: PyTree[Array]  # trainable half of the model
    frozen: PyTree[Array]  # the other arrays, such as frozen initial memories
    optimizer: PyTree[Array]
    step: Int[Array, ""]  # steps done
    skipped: Int[Array, ""]  # steps whose gradient was not finite, and changed nothing


class StepMetrics(eqx.Module):
    """What one step reports."""

    loss: Float[Array, ""]  # before the update, nats per scored token
    gradient_norm: Float[Array, ""]  # before clipping
    skipped: Int[Array, ""]  # skipped steps so far


Rows: TypeAlias = Int[Array, "batch 2 seq"]
Statics: TypeAlias = PyTree
"""What is left of a model without its arrays."""


def init_train_state(
    model: TitansLM, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Statics]:
    """Split a model for training.

    Args:
        model: The model.
        optimizer: From `build_optimizer`.

    Returns:
        The state before the first step, and the static half of the model.
    """
    arrays, statics = eqx.partition(model, eqx.is_array)
    parameters, frozen = eqx.partition(arrays, trainable(arrays))
    state = TrainState(
        parameters=parameters,
        frozen=frozen,
        optimizer=optimizer.init(parameters),
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
    )
    return state, statics


def assemble(state: TrainState, statics: Statics) -> TitansLM:
    """The model that a train state holds."""
    return eqx.combine(state.parameters, state.frozen, statics)


def build_train_step(
    optimizer: optax.GradientTransformation, statics: Statics, mesh: Mesh
) -> Callable[[TrainState, Rows], tuple[TrainState, StepMetrics]]:
    """Compile-once training step; the batch is split over the mesh.

    A step whose loss or gradient is not finite leaves parameters and optimiser as they
    were and is counted.

    Args:
        optimizer: From `build_optimizer`.
        statics: From `init_train_state`.
        mesh: Where the rows are spread.

    Returns:
        A function from state (donated) and rows to the next state and the step's
        metrics.
    """
    sharded_gradient = jax.shard_map(
        jax.value_and_grad(_local_loss(statics)),
        mesh=mesh,
        in_specs=(REPLICATED, REPLICATED, BATCH),
        out_specs=(REPLICATED, REPLICATED),
    )

    def step(state: TrainState, rows: Rows) -> tuple[TrainState, StepMetrics]:
        loss, gradient = sharded_gradient(state.parameters, state.frozen, rows)
        norm = optax.tree.norm(gradient)
        updates, optimizer_state = optimizer.update(
            gradient, state.optimizer, state.parameters
        )
        parameters = eqx.apply_updates(state.parameters, updates)
        is_finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        parameters, optimizer_state = jax.tree.map(
            lambda new, old: jnp.where(is_finite, new, old),
            (parameters, optimizer_state),
            (state.parameters, state.optimizer),
        )
        state = TrainState(
            parameters=parameters,
            frozen=state.frozen,
            optimizer=optimizer_state,
            step=state.step + 1,
            skipped=state.skipped + (~is_finite).astype(jnp.int32),
        )
        return state, StepMetrics(loss, norm, state.skipped)

    return jax.jit(step, donate_argnums=0)


class RowSums(eqx.Module):
    """Sums over the scored tokens of each row."""

    loss: Float[Array, " batch"]  # nats
    n_scored: Int[Array, " batch"]
    n_correct: Int[Array, " batch"]


def build_eval_step(
    statics: Statics, mesh: Mesh
) -> Callable[[TrainState, Rows], RowSums]:
    """Scores of rows that are not trained on.

    Args:
        statics: From `init_train_state`.
        mesh: Where the rows are spread.

    Returns:
        A function from state and rows to the sums of each row.
    """

    def local_sums(
        parameters: PyTree[Array], frozen: PyTree[Array], rows: Rows
    ) -> RowSums:
        scores = score_rows(eqx.combine(parameters, frozen, statics), rows)
        return RowSums(
            loss=jnp.sum(scores.loss, axis=1),
            n_scored=jnp.sum(scores.is_scored, axis=1, dtype=jnp.int32),
            n_correct=jnp.sum(scores.is_correct, axis=1, dtype=jnp.int32),
        )

    sharded_sums = jax.shard_map(
        local_sums,
        mesh=mesh,
        in_specs=(REPLICATED, REPLICATED, BATCH),
        out_specs=BATCH,
    )
    return jax.jit(
        lambda state, rows: sharded_sums(state.parameters, state.frozen, rows)
    )


def _local_loss(statics: Statics) -> Callable[..., Float[Array, ""]]:
    def local_loss(
        parameters: PyTree[Array], frozen: PyTree[Array], rows: Rows
    ) -> Float[Array, ""]:
        # Marked as varying here, once, the gradients are summed over devices once, at
        # the very end; left replicated, they would be summed at each use, inside every
        # scan.
        parameters, frozen = jax.lax.pcast(
            (parameters, frozen), DATA_AXIS, to="varying"
        )
        scores = score_rows(eqx.combine(parameters, frozen, statics), rows)
        # Summed over the mesh before differentiating: the gradient of a replicated
        # parameter then arrives already summed over devices.
        loss, n_scored = jax.lax.psum(
            (jnp.sum(scores.loss), jnp.sum(scores.is_scored, dtype=scores.loss.dtype)),
            DATA_AXIS,
        )
        return loss / jnp.maximum(n_scored, 1)

    return local_loss
