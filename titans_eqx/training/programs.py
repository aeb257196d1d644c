"""The training step, compiled for each shape of a batch."""

from typing import TypeAlias

import jax

from titans_eqx.training.loss import Batch
from titans_eqx.training.state import TrainState
from titans_eqx.training.step import StepMetrics, TrainStep

_Shapes: TypeAlias = frozenset[tuple[str, tuple[int, ...]]]


class StepPrograms:
    """A training step whose compilation is asked for, apart from its first call."""

    def __init__(self, train_step: TrainStep) -> None:
        """Compile nothing yet."""
        self._train_step = train_step
        self._programs: dict[_Shapes, jax.stages.Compiled] = {}

    def __contains__(self, batch: Batch) -> bool:
        """Whether there is a program for batches of this shape."""
        return _shapes(batch) in self._programs

    def compile(self, state: TrainState, batch: Batch) -> None:
        """Make the program for batches of this shape; of the state shapes will do."""
        lowered = self._train_step.lower(state, batch)
        self._programs[_shapes(batch)] = lowered.compile()

    def __call__(
        self, state: TrainState, batch: Batch
    ) -> tuple[TrainState, StepMetrics]:
        """Take a step; the state is donated."""
        return self._programs[_shapes(batch)](state, batch)


def _shapes(batch: Batch) -> _Shapes:
    return frozenset((name, x.shape) for name, x in batch.items())
