"""What can be wrong with a checkpoint."""

from typing import ClassVar, Final

from titans_eqx.errors import UserError, one_line

MAX_REASON: Final = 300  # characters of what a reader of damaged files says


class CheckpointError(UserError):
    """A checkpoint cannot be written or used; the message is one line."""


class NoCheckpointError(CheckpointError):
    """Nothing has been saved, or all that could be used is damaged."""

    exit_code: ClassVar[int] = 4


class DamagedError(ValueError):
    """A stored folder is not what was written; the message names the part."""

    def __init__(self, message: str) -> None:
        """Keep the message on one line."""
        super().__init__(one_line(message))
