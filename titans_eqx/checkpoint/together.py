"""One verdict of all processes of a run on what is stored."""

from collections.abc import Callable

from titans_eqx.checkpoint.errors import DamagedError
from titans_eqx.sharding.processes import from_primary


def together(check: Callable[[], None]) -> None:
    """Make a check in all processes; what process 0 finds damaged is so for all.

    Raises:
        DamagedError: In every process, if the check does in process 0.
    """
    damage: list[str] = []
    try:
        check()
    except DamagedError as error:
        damage = [str(error)]
    if damage := from_primary(lambda: damage):
        raise DamagedError(damage[0])
