"""A wish to stop that all processes of a run follow after the same step."""

import os
import signal
from collections.abc import Callable

import jax
from jax.experimental import multihost_utils

from titans_eqx.terminal import StopRequest
from titans_eqx.terminal.interrupt import SIGNALS


class AgreedStop:
    """SIGINT or SIGTERM, sent to any process of a run, stops them all.

    With one process it is a `StopRequest`. With several, jax's own runtime takes
    SIGTERM as the notice that a machine is about to be taken away: it tells the other
    processes and settles on a step that none has passed. SIGINT is passed on to it. A
    second signal ends the process it is sent to, and so the others.
    """

    def __init__(self, answer: Callable[[], None]) -> None:
        """Set no handlers before the `with` block is entered.

        Args:
            answer: Tells the user; called in another thread.
        """
        self._is_alone = jax.process_count() == 1
        self._answer = answer
        self._request = StopRequest(
            self._pass_on, signals=SIGNALS if self._is_alone else (signal.SIGINT,)
        )

    def __enter__(self) -> "AgreedStop":
        """Install the handlers."""
        self._request.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        """Restore the earlier handlers."""
        self._request.__exit__(*exception)

    def is_due(self, step: int) -> bool:
        """Whether to stop now; to be asked after every step, with its number."""
        if self._is_alone:
            return self._request.is_set
        return multihost_utils.reached_preemption_sync_point(step)

    def _pass_on(self) -> None:
        self._answer()
        if not self._is_alone:
            os.kill(os.getpid(), signal.SIGTERM)
