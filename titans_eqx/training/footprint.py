"""What a training step needs of a device's memory, found without allocating it."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from titans_eqx.config import RunConfig
from titans_eqx.errors import UserError
from titans_eqx.nn.tree import n_bytes
from titans_eqx.sharding.capacity import Capacity
from titans_eqx.sharding.mesh import AnyMesh, batch_sharding
from titans_eqx.sharding.parameters import device_bytes, placed_shapes
from titans_eqx.training.state import TrainState
from titans_eqx.training.step import TrainStep


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes on one device while a step runs.

    Counted are the parameters, frozen ones included, the optimizer's state with the
    average of the parameters, and what the step makes of them: activations kept for the
    backward pass, the states of the memories and gradients. Not counted are the
    compiler, the text, evaluations, and the copy of the state that is made for a
    checkpoint.
    """

    parameters: int
    optimizer: int
    step: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.optimizer + self.step

    def describe(self, capacity: Capacity) -> str:
        """What is needed of what there is, and for what, on one line."""
        needed = spell_bytes(capacity.n_devices * self.total)
        place = f"on each of {capacity.n_devices} devices: "
        return (
            f"{needed} of {spell_bytes(capacity.n_bytes)} "
            f"({place if capacity.n_devices > 1 else ''}{self})"
        )

    def __str__(self) -> str:
        """What is needed of one device, by kind."""
        return (
            f"parameters {spell_bytes(self.parameters)}, "
            f"optimizer {spell_bytes(self.optimizer)}, "
            f"activations and gradients {spell_bytes(self.step)}"
        )

    def require(self, capacity: Capacity) -> None:
        """Refuse a run that cannot fit.

        Raises:
            UserError: If it needs more than there is.
        """
        if capacity.n_devices * self.total > capacity.n_bytes:
            raise UserError(
                "a training step needs more memory than there is: "
                f"{self.describe(capacity)}. Lower train.batch_size, data.seq_len or "
                "the sizes of the model; --dry-run shows what each needs."
            )


def least_footprint(state: TrainState, mesh: AnyMesh) -> Footprint:
    """What any step needs, before one is traced: no activations, only gradients."""
    return Footprint(
        parameters=device_bytes((state.parameters, state.frozen), mesh),
        optimizer=device_bytes((state.optimizer, state.average), mesh),
        step=device_bytes(state.parameters, mesh) + _carry_bytes(state, mesh),
    )


def footprint(
    train_step: TrainStep, state: TrainState, config: RunConfig, mesh: AnyMesh
) -> Footprint:
    """The footprint of the longest step of a run.

    The step is traced, which is not done again when it runs.

    Args:
        train_step: The step.
        state: What it is called with; shapes are enough.
        config: The run.
        mesh: Its devices.
    """
    shapes = placed_shapes(state, state.shardings(mesh))
    traced = train_step.trace(shapes, batch_shapes(config, mesh))
    # The optimizer's own arithmetic, number by number, is done in place.
    inner = [sub for eqn in traced.jaxpr.eqns for sub in _inner(eqn)]
    step = max(map(_peak, inner)) + _carry_bytes(state, mesh)
    return dataclasses.replace(least_footprint(state, mesh), step=step)


def batch_shapes(config: RunConfig, mesh: AnyMesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The longest batch of a run."""
    length = max(config.data.training_lengths)
    arrays: dict[str, tuple[tuple[int, ...], Any]] = {
        "inputs": ((length,), jnp.int32),
        "targets": ((length,), jnp.int32),
        "mask": ((length,), jnp.bool_),
    }
    if config.data.packing == "documents":
        n_starts = config.data.max_documents - (not config.train.carry_state)
        arrays["document_starts"] = (n_starts,), jnp.int32
    if config.train.carry_state:
        arrays["reset"] = (), jnp.bool_
    return {
        name: jax.ShapeDtypeStruct(
            (config.train.batch_size, *shape), dtype, sharding=batch_sharding(mesh)
        )
        for name, (shape, dtype) in arrays.items()
    }


def spell_bytes(n_bytes: int) -> str:
    """A number of bytes with a unit."""
    number, units = float(n_bytes), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number, units = number / 1024, units[1:]
    return f"{number:,.3g} {units[0]}" if number < 1000 else f"{number:,.0f} {units[0]}"


def _carry_bytes(state: TrainState, mesh: AnyMesh) -> int:
    return n_bytes(state.carry) // mesh.size


def _peak(jaxpr: Jaxpr) -> int:
    """The most bytes that live at once of what a program makes.

    In the order in which it is written, with nothing fused. The compiler's own figure
    is larger by about a quarter.
    """
    last_use = {
        var: index
        for index, eqn in enumerate(jaxpr.eqns)
        for var in _variables(eqn.invars)
    }
    last_use |= dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns))
    alive: dict[Var, int] = {}
    living = most = 0
    for index, eqn in enumerate(jaxpr.eqns):
        made = {var: _aval_bytes(var.aval) for var in eqn.outvars}
        inside = max(map(_peak, _inner(eqn)), default=0)
        most = max(most, living + max(inside, sum(made.values())))
        alive |= made
        for var in {*_variables(eqn.invars), *made} & alive.keys():
            if last_use.get(var, index) <= index:
                del alive[var]
        living = sum(alive.values())
    return most


def _inner(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """The programs inside an equation, such as the body of a scan."""
    for value in eqn.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, Jaxpr):
                yield one


def _variables(atoms: list[Any]) -> Iterator[Var]:
    return (atom for atom in atoms if not isinstance(atom, Literal))


def _aval_bytes(aval: Any) -> int:
    # A random key has no itemsize of a number, and is small.
    return aval.size * getattr(aval.dtype, "itemsize", 0) if aval.shape else 0
