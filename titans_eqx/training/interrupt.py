"""SIGINT and SIGTERM as a request to finish the step, save and return."""

import signal
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Notes the first SIGINT or SIGTERM; a second one has its usual effect."""

    def __init__(self) -> None:
        """Set no handlers before the `with` block is entered."""
        self.is_set = False
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        """Install the handlers."""
        self._previous = {s: signal.signal(s, self._note) for s in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        """Restore the earlier handlers."""
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
