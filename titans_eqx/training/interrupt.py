"""Stopping a run politely: finish the step, save, leave."""

import signal
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Notes the first SIGINT or SIGTERM; a second one acts as usual, at once."""

    def __init__(self) -> None:
        """Do nothing yet; the handlers are set on entering the `with` block."""
        self.is_set = False
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        """Take over the signals."""
        self._previous = {s: signal.signal(s, self._note) for s in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the signals back."""
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
