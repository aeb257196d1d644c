"""Texts that a user gives to a command."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from titans_eqx.errors import UserError
from titans_eqx.files import read_regular

MAX_TEXT_BYTES: Final = 2**28


def read_text(path: Path | None) -> bytes:
    """The text of a file, or of standard input for None.

    Raises:
        UserError: If it cannot be read, or is empty.
    """
    name = "the standard input" if path is None else str(path)
    try:
        if path is not None:
            text = read_regular(path, MAX_TEXT_BYTES)
        else:
            require_stdin()
            text = read_bounded(sys.stdin.buffer.read, name)
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or error}.") from error
    if not text:
        raise UserError(f"{name} is empty; give a text of at least one character.")
    return text


def require_stdin() -> None:
    """Raise a UserError if the process was started without a standard input."""
    if sys.stdin is None:
        raise UserError("the standard input is closed; give a text with an option.")


def read_bounded(read: Callable[[int], bytes], name: str) -> bytes:
    """What a function reads that is given the most bytes to read.

    Raises:
        UserError: If there is more than a text may have.
    """
    text = read(MAX_TEXT_BYTES + 1)
    if len(text) > MAX_TEXT_BYTES:
        raise UserError(
            f"{name} does not end after {MAX_TEXT_BYTES:,} bytes, the most that is "
            "read."
        )
    return text
