"""Time of a run, and runs of several programs by turns."""

import time
from collections.abc import Callable, Sequence

import jax
from jaxtyping import PyTree


def seconds_of(
    run: Callable[[], PyTree], *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Time one run until the results that it returns are there."""
    start = clock()
    jax.block_until_ready(run())
    return clock() - start


def by_turns(
    timers: Sequence[Callable[[], float]], repeats: int
) -> list[tuple[float, ...]]:
    """Let several timers run one after the other, again and again.

    A machine that becomes slower or faster meanwhile does so for all of them, so that
    ratios stay fair.

    Args:
        timers: Each times one run.
        repeats: How often each runs.

    Returns:
        What each timer returned, in its order.
    """
    rounds = [[timer() for timer in timers] for _ in range(repeats)]
    return list(zip(*rounds, strict=True))
