"""The child's side of a measurement: answers what `isolation` asks.

Messages are lines of JSON. The first one that comes in holds the case; the answer says
what was built. Each further one names a task, and is answered by a number. The
interpreter of another package runs this too, so it imports the standard library only.
"""

import ctypes
import json
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

MIB = 2**20
RESET_PEAK = "5"  # as Linux defines it


def serve(
    build: Callable[[dict[str, Any]], tuple[dict[str, Any], dict[str, Callable]]],
    accelerator_peak_bytes: Callable[[], int],
    refusal: type[Exception],
) -> None:
    """Answer on standard output what is asked on standard input, until it ends.

    Args:
        build: From the first message to what was built, and the tasks: functions that
            return a number, among them "run".
        accelerator_peak_bytes: The most memory of the accelerator in use so far; 0 if
            there is none, and the machine's is what counts.
        refusal: What is raised when a case cannot be measured.
    """
    # Whatever else prints, in Python or below it, must not get among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    def peak_mib() -> float:
        return (accelerator_peak_bytes() or peak_resident_bytes()) / MIB

    try:
        facts, tasks = build(json.loads(next(sys.stdin)))
        peak_of_building = peak_mib()
        # An accelerator's peak stays: what building took could not be told apart.
        is_forgotten = forget_peak() and not accelerator_peak_bytes()
        tasks = tasks | {
            "peak": lambda: max(peak_of_building, peak_mib()),
            "running peak": lambda: peak_mib() if is_forgotten else None,
        }
        answer(facts)
        for question in sys.stdin:
            answer({"value": tasks[json.loads(question)["do"]]()})
    except refusal as error:
        answer({"error": str(error)})


def peak_resident_bytes() -> int:
    """The most bytes of the machine's memory that this process has had resident."""
    # On Linux `ru_maxrss` starts at the peak of the process that started this one.
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> bool:
    """Let `peak_resident_bytes` count from what is in use now, where that can be had.

    What the compiler used and freed is given back before.

    Returns:
        Whether it could be had, as on Linux.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w", encoding="ascii") as switch:
            switch.write(RESET_PEAK)
        return True
    return False
