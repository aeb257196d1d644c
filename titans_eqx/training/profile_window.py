"""A window of steps that is recorded for a profiler."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jax
from jaxtyping import PyTree

from titans_eqx.errors import UserError

WINDOW: Final = re.compile(r"([0-9]{1,9}):([0-9]{1,9})")


@dataclass(frozen=True)
class ProfileWindow:
    """Which steps are recorded, the first of a run being step 1."""

    first: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "ProfileWindow":
        """Read `FIRST:COUNT`.

        Raises:
            UserError: If it is not that, or no step.
        """
        match = WINDOW.fullmatch(text)
        first, count = map(int, match.groups()) if match else (0, 0)
        if first < 1 or count < 1:
            raise UserError(
                f"--profile must be FIRST:COUNT, both at least 1, such as 10:3 for the "
                f"steps 10, 11 and 12; got {text!r}."
            )
        return cls(first, count)

    def require(self, steps_done: int, steps: int) -> None:
        """Refuse a window that has no step in what is left of a run.

        Raises:
            UserError: If it begins before or after it.
        """
        if steps_done >= steps:
            raise UserError(
                f"--profile {self.first}:{self.count}: the run has all its {steps:,} "
                "steps. Raise train.steps, or leave --profile out."
            )
        if not steps_done < self.first <= steps:
            raise UserError(
                f"--profile {self.first}:{self.count} begins at step {self.first}; "
                f"steps {steps_done + 1:,} to {steps:,} are left. Name one of these."
            )


class Profiler:
    """Records the steps of a window into a folder, as `jax.profiler` does."""

    def __init__(self, window: ProfileWindow | None, folder: Path) -> None:
        """Prepare; None records nothing, and nothing is written before the window."""
        self._window = window
        self._folder = folder
        self._is_recording = False

    def before(self, step: int) -> None:
        """Start, if a step that is about to be taken is the first of the window."""
        if self._window is not None and step == self._window.first:
            jax.profiler.start_trace(self._folder)
            self._is_recording = True

    def after(self, step: int, state: PyTree) -> bool:
        """Stop, if a step was the last of the window; wait for what it returned.

        Returns:
            Whether the recording is complete now.
        """
        window = self._window
        if window is None or step != window.first + window.count - 1:
            return False
        jax.block_until_ready(state)
        self.close()
        return True

    def close(self) -> None:
        """Stop wherever the window is; may be called twice."""
        if self._is_recording:
            self._is_recording = False
            jax.profiler.stop_trace()
