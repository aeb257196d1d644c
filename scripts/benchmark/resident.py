"""How much memory this process has used at most."""

import ctypes
import resource
import sys
from contextlib import suppress
from typing import Final

import jax

MIB: Final = 2**20
RESET_PEAK: Final = "5"  # what Linux calls it


def peak_mib() -> float:
    """The most memory that this process has had resident so far.

    Returns:
        MiB of the machine's memory; on an accelerator, of the accelerator's.
    """
    statistics = jax.devices()[0].memory_stats()
    if statistics is not None and "peak_bytes_in_use" in statistics:
        return statistics["peak_bytes_in_use"] / MIB
    return peak_resident_bytes() / MIB


def peak_resident_bytes() -> int:
    """The most bytes of the machine's memory that were resident so far.

    Returns:
        Bytes, of this process alone.
    """
    # On Linux `ru_maxrss` starts at the peak of the process that started this one.
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> None:
    """Let `peak_resident_bytes` count from what is in use now, where that can be had.

    That is on Linux. What the compiler used and freed is given back before.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w", encoding="ascii") as switch:
            switch.write(RESET_PEAK)
