"""What is left of a run that ends early."""

import contextlib
from collections.abc import Callable, Iterator

from titans_eqx.errors import UserError, os_reason


def kept(steps: list[int]) -> str:
    """A sentence on the checkpoints there are.

    Args:
        steps: Those that were written to their end.
    """
    if not steps:
        return "There is no checkpoint to go on from."
    return (
        f"Kept are the checkpoints of step {', '.join(map(str, steps))}; the same "
        "command goes on from there."
    )


@contextlib.contextmanager
def failures_say_what_is_kept(steps: Callable[[], list[int]]) -> Iterator[None]:
    """Turn what the operating system refuses in the block into a `UserError`.

    Args:
        steps: Asked for the argument of `kept` when something was refused.

    Raises:
        UserError: With the refusal and what is kept.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{os_reason(error)}. {kept(steps())}") from error
