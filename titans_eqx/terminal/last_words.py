"""A line that is printed if a process ends without a word."""

import contextlib
import os
import subprocess
from typing import Final

LOG_LEVEL: Final = "TF_CPP_MIN_LOG_LEVEL"
"""In the environment: what jax's runtime logs, from 0 (all) to 4 (nothing)."""

# Prints the last line that it was told, once nobody can tell it another.
HEIR: Final = (
    "while read -r line; do last=$line; done; "
    '[ -z "$last" ] || printf \'%s\\n\' "$last" >&2'
)


def silence_runtime() -> None:
    """Keep jax's runtime from explaining at length that a process is lost.

    To be called before jax is imported. A setting of the user wins, unless it is the
    one that jax itself makes, and leaves to the programs that it starts.
    """
    if os.environ.get(LOG_LEVEL, "1") == "1":
        os.environ[LOG_LEVEL] = "4"


class LastWords:
    """What is printed on standard error should this process be killed or abort.

    Another process prints it, a shell of a few lines: in one that is killed, or that a
    library ends by `abort`, no code of its own runs any more.
    """

    def __init__(self) -> None:
        """Start the other process; without a shell nothing will be printed."""
        self._heir: subprocess.Popen[str] | None = None
        with contextlib.suppress(OSError):
            self._heir = subprocess.Popen(
                ["sh", "-c", HEIR],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C is not meant for it
            )

    def say(self, line: str) -> None:
        """Replace the line to be printed; an empty one is none."""
        if self._heir is not None and self._heir.stdin is not None:
            with contextlib.suppress(OSError):
                self._heir.stdin.write(f"{line}\n")
                self._heir.stdin.flush()

    def close(self) -> None:
        """Print nothing, whatever comes."""
        self.say("")
        if self._heir is not None and self._heir.stdin is not None:
            with contextlib.suppress(OSError):
                self._heir.stdin.close()
            self._heir.wait()
