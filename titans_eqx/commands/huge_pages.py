"""Memory in pages of 2 MiB, for programs that compute on the CPU.

Compiled programs ask for hundreds of megabytes at each call and return them after it.
In pages of 4 KiB a large part of a training step goes into making those pages. Most
Linux systems give huge pages only to programs that ask for them, and the C library asks
when its environment says so before the program starts.
"""

import multiprocessing
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Final

VARIABLE: Final = "TITANS_EQX_HUGE_PAGES"
"""In the environment: 0 to do without."""

TUNABLES: Final = "GLIBC_TUNABLES"
TUNABLE: Final = "glibc.malloc.hugetlb"
FIRST_GLIBC: Final = (2, 35)
STARTED: Final = "TITANS_EQX_STARTED_AGAIN"
"""In the environment of a process that was started again: its number."""

CHOICE: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Start a command again with huge pages, where that is needed and possible.

    To be called before anything was done: the process keeps its number, arguments and
    streams, and nothing else. A program that only imports a command, a debugger and a
    child of `multiprocessing` go on as they are.
    """
    is_watched = sys.gettrace() is not None
    is_child = multiprocessing.parent_process() is not None
    if not is_launcher(sys.modules["__main__"]) or is_watched or is_child:
        return
    number = str(os.getpid())
    environment = with_huge_pages(os.environ)
    # Some systems take the setting out of the environment, which would never end.
    is_again = os.environ.get(STARTED) == number
    if environment != dict(os.environ) and not is_again:
        sys.stdout.flush()
        sys.stderr.flush()
        with suppress(OSError):  # then it goes on as it is
            os.execve(
                sys.executable,
                [sys.executable, *sys.orig_argv[1:]],
                env=environment | {STARTED: number},
            )


def with_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment whose programs get huge pages.

    It is unchanged where programs have no choice (other systems than Linux, other C
    libraries than glibc, old ones) or the user has made it.
    """
    tunables = environment.get(TUNABLES, "")
    is_made = TUNABLE in tunables or environment.get(VARIABLE) == "0"
    if is_made or not _is_a_choice():
        return dict(environment)
    setting = ":".join(filter(None, [tunables, f"{TUNABLE}=1"]))
    return {**environment, TUNABLES: setting}


def is_launcher(program: ModuleType) -> bool:
    """Whether a program is a file that does nothing but run one of our commands.

    Such as those in `scripts/` and those that pip makes of `[project.scripts]`: all
    that they define is the command, all that they import besides is listed here.
    """
    names = {name for name in vars(program) if not name.startswith("__")}
    callback = getattr(getattr(program, "main", None), "callback", None)
    return (
        getattr(program, "__file__", None) is not None
        and names <= {"main", "re", "sys"}
        and getattr(callback, "__module__", "").startswith("titans_eqx.commands.")
    )


def _is_a_choice() -> bool:
    with suppress(AttributeError, ValueError, OSError):  # other systems
        library = re.match(r"glibc (\d+)\.(\d+)", _library())
        if library is not None and tuple(map(int, library.groups())) >= FIRST_GLIBC:
            return "[madvise]" in CHOICE.read_text(encoding="ascii")
    return False


def _library() -> str:
    """Name and version of the C library."""
    return os.confstr("CS_GNU_LIBC_VERSION") or ""
