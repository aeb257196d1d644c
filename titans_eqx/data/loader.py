"""Loader: training batches as a pure function of (seed, step, row).

Row r of global step s is element `s * batch_size + r` of one endless shuffled
sequence, every epoch in a new order. A process takes its contiguous part of those
rows, so any number of processes sees the same global batches and resuming needs the
step alone.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import grain
import numpy as np

from titans_eqx.data.errors import DataError
from titans_eqx.data.rows import Rows

READ_THREADS: Final = 2
PREFETCHED_STEPS: Final = 8


class TrainBatches:
    """Shuffled batches of rows, addressed by step.

    Attributes:
        batch_size: Rows of a step over all processes.
        local_batch: Rows of a step in this process.
    """

    batch_size: int
    local_batch: int

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        seed: int,
        *,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        """Set up the order of the rows; reads none.

        Args:
            rows: Any random-access source of equally shaped int32 rows.
            batch_size: Rows per step over all processes, a multiple of
                `process_count`.
            seed: Decides the order, in [0, 2**32).
            process_index: Which part of each batch is ours.
            process_count: Number of parts.

        Raises:
            DataError: If there are fewer rows than one batch needs.
            ValueError: If the sizes do not fit together.
        """
        if not 0 <= process_index < process_count:
            raise ValueError(
                f"process_index must be in [0, {process_count}), got {process_index}"
            )
        if batch_size < 1 or batch_size % process_count:
            raise ValueError(
                "train.batch_size must be a positive multiple of the number of "
                f"processes, got {batch_size} for {process_count}"
            )
        if not 0 <= seed < 2**32:
            raise ValueError(f"data.seed must be in [0, 2**32), got {seed}")
        if len(rows) < batch_size:
            raise DataError(
                f"{len(rows)} rows of training text are fewer than one batch of "
                f"{batch_size}: lower data.seq_len or train.batch_size, or give more "
                "text in data.path"
            )
        self.batch_size = batch_size
        self.local_batch = batch_size // process_count
        self._first_row = process_index * self.local_batch
        self._shuffled = grain.MapDataset.source(rows).seed(seed).shuffle().repeat(None)

    def __getitem__(self, step: int) -> np.ndarray:
        """Read this process's rows of a step, shape (local_batch, *row).

        Raises:
            IndexError: If the step is negative.
            DataError: If a file vanished, shrank or cannot be read.
        """
        if step < 0:
            raise IndexError(f"step must not be negative, got {step}")
        first = step * self.batch_size + self._first_row
        numbers = range(first, first + self.local_batch)
        return np.stack([np.asarray(self._shuffled[number]) for number in numbers])

    def iterate(self, start_step: int, stop_step: int) -> Iterator[np.ndarray]:
        """Yield the batches of `range(start_step, stop_step)`, read ahead by threads.

        The values are those of indexing, in order, however slow the rows are.

        Raises:
            DataError: If a file vanished, shrank or cannot be read.
        """
        yield from _read_ahead(self.__getitem__, start_step, stop_step)


class AlternatingBatches:
    """Batches of several kinds in turns, such as rows of different lengths."""

    def __init__(self, kinds: Sequence[TrainBatches]) -> None:
        """Set up the turns.

        Args:
            kinds: What step 0, 1, ... read; then the first one has its turn again.
        """
        self._kinds = tuple(kinds)

    def __getitem__(self, step: int) -> np.ndarray:
        """Read this process's rows of a step; see `TrainBatches`."""
        turn, kind = divmod(step, len(self._kinds))
        return self._kinds[kind][turn]

    def iterate(self, start_step: int, stop_step: int) -> Iterator[np.ndarray]:
        """Yield the batches of a range of steps; see `TrainBatches`."""
        yield from _read_ahead(self.__getitem__, start_step, stop_step)


def _read_ahead(
    read: Callable[[int], np.ndarray], start_step: int, stop_step: int
) -> Iterator[np.ndarray]:
    """Yield `read` of every step in a range, with threads ahead of the reader."""
    if start_step >= stop_step:
        return
    steps = grain.MapDataset.range(start_step, stop_step).map(read)
    options = grain.ReadOptions(
        num_threads=READ_THREADS, prefetch_buffer_size=PREFETCHED_STEPS
    )
    iterator = iter(steps.to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()
