"""Memory in pages of 2 MiB, for programs that compute on the CPU.

Compiled programs ask for hundreds of megabytes at each call and return them after it.
In pages of 4 KiB a large part of a training step goes into making those pages. Most
Linux systems give huge pages only to programs that ask for them, and the C library asks
when its environment says so before the program starts.
"""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

VARIABLE: Final = "TITANS_EQX_HUGE_PAGES"
"""In the environment: 0 to do without; set to 1 here."""

TUNABLES: Final = "GLIBC_TUNABLES"
SETTING: Final = "glibc.malloc.hugetlb=1"
FIRST_GLIBC: Final = (2, 35)
CHOICE: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Start this program again with huge pages, where that is needed and possible.

    To be called once, before anything was done: the process keeps its number, arguments
    and streams, and nothing else.
    """
    environment = with_huge_pages(os.environ)
    if environment != dict(os.environ):
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], env=environment)


def with_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment whose programs get huge pages.

    Args:
        environment: Variables.

    Returns:
        The variables, unchanged where programs have no choice (other systems than
        Linux, other C libraries than glibc, old ones) or the choice was made already.
    """
    environment = dict(environment)
    if VARIABLE in environment or not _is_a_choice():
        return environment
    others = environment.get(TUNABLES)
    tunables = SETTING if not others else f"{others}:{SETTING}"
    return environment | {VARIABLE: "1", TUNABLES: tunables}


def _is_a_choice() -> bool:
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split("."))) < FIRST_GLIBC:
        return False
    try:
        return "[madvise]" in CHOICE.read_text(encoding="ascii")
    except OSError:
        return False
