"""The common base of errors that are the user's to mend."""

from typing import ClassVar


class UserError(ValueError):
    """A config, a file, a device or an argument that cannot be used.

    The message is one line that says what was found, what is allowed and what to do.
    Commands print it and exit with `exit_code`; anything else is a bug and keeps its
    traceback.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str) -> None:
        """Keep the message on one line: names and files may hold line breaks."""
        super().__init__(" ".join(message.splitlines()))
