"""Errors that are the user's to mend: their base, their line, checks of arguments."""

import os
from typing import ClassVar, Final

MAX_NAME_LEN: Final = 500  # characters of a path that a message repeats


class UserError(ValueError):
    """A config, a file, a device or an argument that cannot be used.

    The message is one line that says what was found, what is allowed and what to do.
    Commands print it and exit with `exit_code`; anything else is a bug and keeps its
    traceback.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str) -> None:
        """Keep the message on one line."""
        super().__init__(one_line(message))


def one_line(message: str) -> str:
    """A message without line breaks, which names and files may hold."""
    return " ".join(message.splitlines())


def os_reason(error: OSError) -> str:
    """What the operating system refused, as `path: reason` where it names a path."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return reason
    name = os.fsdecode(error.filename)
    if len(name) > MAX_NAME_LEN:
        name = f"{name[:60]}... ({len(name):,} characters)"
    return f"{name}: {reason}"


def check_size(name: str, value: int) -> None:
    """Refuse a size without anything in it.

    Raises:
        ValueError: If it is less than 1.
    """
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {name}={value}.")


def check_option(name: str, value: str, *allowed: str) -> None:
    """Refuse a value that an option does not have.

    Raises:
        ValueError: If the value is not among those allowed.
    """
    if value not in allowed:
        raise ValueError(
            f"{name} must be one of {', '.join(allowed)}, got {name}={value!r}."
        )
