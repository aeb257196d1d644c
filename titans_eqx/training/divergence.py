"""When a run has no finite gradient any more."""

from collections.abc import Iterable
from typing import ClassVar, Final

from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.errors import UserError
from titans_eqx.sharding.processes import from_primary

SKIPS_IN_A_ROW: Final = 20  # steps without a finite gradient after which a run gives up


class DivergedError(UserError):
    """Training has no finite gradient any more."""

    exit_code: ClassVar[int] = 3


class DivergenceCheck:
    """Gives up when steps are skipped one after the other."""

    def __init__(self, skipped: int = 0) -> None:
        """Start from the number of steps that the run has skipped."""
        self._skipped = skipped
        self._in_a_row = 0

    def __call__(
        self, step: int, skipped: Iterable[int], checkpoints: Checkpoints
    ) -> None:
        """Look at the steps since the last call.

        Args:
            step: The last of them.
            skipped: For each of them the steps skipped so far.
            checkpoints: Of the run.

        Raises:
            DivergedError: If too many in a row were skipped.
        """
        for count in skipped:
            self._in_a_row = self._in_a_row + 1 if count > self._skipped else 0
            self._skipped = count
        if self._in_a_row < SKIPS_IN_A_ROW:
            return
        checkpoints.wait()
        saved = from_primary(checkpoints.complete_steps)  # which finishes last
        raise DivergedError(
            f"no finite gradient in the {self._in_a_row} steps up to step {step}. "
            "Lower optimizer.learning_rate or model.memory.max_learning_rate. "
            + (
                f"The last checkpoint, of step {saved[-1]}, is intact."
                if saved
                else "No checkpoint was written yet."
            )
        )
