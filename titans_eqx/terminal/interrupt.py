"""Ctrl-C that is answered at once, also while a compiler keeps Python busy."""

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
SHOW_CURSOR: Final = b"\x1b[?25h"


class StopRequest:
    """Answers the first SIGINT or SIGTERM; a second one ends the process.

    Python runs signal handlers between two instructions of its main thread, and a
    compilation is one of them. So the answer and the end come from a thread of their
    own, which learns of signals from a socket (`signal.set_wakeup_fd`). The end is that
    of a crash: nothing is saved or put away, and what was saved before is whole.

    Outside the main thread, which alone may handle signals, it does nothing.
    """

    def __init__(
        self,
        answer: Callable[[], None],
        *,
        signals: Sequence[int] = SIGNALS,
        raises: bool = False,
        patience: float = 0.0,
    ) -> None:
        """Set no handlers before the `with` block is entered.

        Args:
            answer: Tells the user; called in another thread.
            signals: Which signals.
            raises: Whether the first one also raises `KeyboardInterrupt` in the main
                thread, as soon as that runs.
            patience: Seconds that the block has to end before the answer.
        """
        self.is_set = False
        self._answer = answer
        self._signals = signals
        self._raises = raises
        self._patience = patience
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        """Install the handlers."""
        if threading.current_thread() is not threading.main_thread():
            return self
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._previous_writer = signal.set_wakeup_fd(
            self._writer.fileno(), warn_on_full_buffer=False
        )
        self._previous = {s: signal.signal(s, self._note) for s in self._signals}
        return self

    def __exit__(self, *exception: object) -> None:
        """Restore the earlier handlers."""
        if not self._previous:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        signal.set_wakeup_fd(self._previous_writer)
        self._writer.close()
        self._thread.join()
        self._reader.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True
        if self._raises:
            raise KeyboardInterrupt

    def _watch(self) -> None:
        """Read the numbers of signals, one byte each, until the socket is closed."""
        is_answered = False
        while number := self._reader.recv(1):
            if number[0] not in self._signals:
                continue
            if is_answered:
                _end_process(128 + number[0])
            is_answered = self.is_set = True
            if not select.select([self._reader], [], [], self._patience)[0]:
                self._answer()


def _end_process(exit_code: int) -> None:
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), SHOW_CURSOR + b"\n")
    os._exit(exit_code)
