"""The state of a training run, and the model in it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from titans_eqx.models.backbone import LayerStack
from titans_eqx.sharding.mesh import AnyMesh, batch_sharding
from titans_eqx.sharding.parameters import (
    as_shards,
    gather,
    shardings,
    split_axes,
)
from titans_eqx.training.optimizer import trainable
from titans_eqx.training.spikes import SpikeStatistics

Static: TypeAlias = PyTree
"""What is left of a model without its arrays."""


class TrainState(eqx.Module):
    """All that training changes; arrays only, so a checkpoint holds all of it."""

    parameters: PyTree[Array]  # trainable half of the model
    frozen: PyTree[Array]  # the other arrays, such as frozen initial memories
    optimizer: PyTree[Array]
    step: Int[Array, ""]  # steps done
    skipped: Int[Array, ""]  # steps whose gradient was not finite, and changed nothing
    spikes: Int[Array, ""]  # steps left out as spikes
    statistics: SpikeStatistics
    average: PyTree[Array] | None = None  # of the parameters over steps, if it is kept
    carry: PyTree[Array] | None = None  # state of each row of a batch, if it goes on

    def items(self) -> dict[str, PyTree]:
        """The parts of a checkpoint; who only wants the model reads only the first."""
        items = {
            "model": eqx.combine(self.parameters, self.frozen),
            "optimizer": self.optimizer,
            "counters": {
                "step": self.step,
                "skipped": self.skipped,
                "spikes": self.spikes,
                "statistics": self.statistics,
            },
        }
        if self.average is not None:  # as a model, for those who only want that
            items["average"] = eqx.combine(self.average, self.frozen)
        if self.carry is not None:
            items["carry"] = self.carry
        return items

    @classmethod
    def from_items(cls, items: Mapping[str, PyTree]) -> "TrainState":
        """The inverse of `items`."""
        model = items["model"]
        parameters, frozen = eqx.partition(model, trainable(model))
        average = None
        if "average" in items:
            average = eqx.filter(items["average"], trainable(model))
        return cls(
            parameters,
            frozen,
            items["optimizer"],
            **items["counters"],
            average=average,
            carry=items.get("carry"),
        )

    def shardings(self, mesh: AnyMesh) -> "TrainState":
        """How its arrays are spread over a mesh: rows like those of a batch."""
        spread = shardings(self, mesh)
        if self.carry is None:
            return spread
        rows = jax.tree.map(lambda _: batch_sharding(mesh), self.carry)
        return eqx.tree_at(lambda state: state.carry, spread, rows)

    def evaluated(self) -> "TrainState":
        """What is evaluated: the average in place of the parameters, if it is kept."""
        if self.average is None:
            return self
        return dataclasses.replace(self, parameters=self.average)


def init_train_state(
    model: eqx.Module,
    optimizer: optax.GradientTransformation,
    *,
    averages: bool = False,
    carry: PyTree[Array] | None = None,
) -> tuple[TrainState, Static]:
    """Split a model into the state before the first step and its static half.

    Args:
        model: Before its first step.
        optimizer: From `build_optimizer`.
        averages: Whether an average of the parameters is kept.
        carry: From `init_carry`, if the rows of a batch go on with those of the last.
    """
    arrays, static = eqx.partition(model, eqx.is_array)
    parameters, frozen = eqx.partition(arrays, trainable(arrays))
    state = TrainState(
        parameters=parameters,
        frozen=frozen,
        optimizer=optimizer.init(parameters),
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        spikes=jnp.zeros((), jnp.int32),
        statistics=SpikeStatistics.init(),
        average=jax.tree.map(jnp.copy, parameters) if averages else None,
        carry=carry,
    )
    return state, static


def assemble(state: TrainState, static: Static) -> Any:
    """The model that a train state holds."""
    return eqx.combine(state.parameters, state.frozen, static)


def whole_model(
    state: TrainState, static: Static, mesh: AnyMesh
) -> Callable[[PyTree[Array], PyTree[Array]], Any]:
    """From a device's parts to a model; stacks of blocks gather theirs one by one.

    Args:
        state: Has the shapes of the whole arrays.
        static: From `init_train_state`.
        mesh: The devices.
    """
    axes = split_axes(assemble(state, static), mesh)

    def whole(parameters: PyTree[Array], frozen: PyTree[Array]) -> Any:
        model = as_shards(eqx.combine(parameters, frozen, static), axes)
        return gather(model, but=(LayerStack,))

    return whole
