"""Loader: training batches as a pure function of (seed, step, process).

A process takes its contiguous part of each global batch, so any number of processes
sees the same global batches and resuming needs the step alone.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from titans_eqx.data.errors import DataError
from titans_eqx.data.example import Dataset, Example

# Endless, but grain overflows when it counts batches of one of truly endless examples.
MAX_EXAMPLES: Final = 2**62
N_THREADS: Final = 2  # that read ahead
N_READ_AHEAD: Final = 8  # batches


class TrainBatches:
    """Batches, addressed by step, of datasets that take turns.

    Every dataset is read over and over, each time in a new order or always in its own.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        batch_size: int,
        seed: int,
        *,
        shuffle: bool = True,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        """Set up the order of the examples; reads none.

        Args:
            datasets: What step 0, 1, ... read; then the first has its turn again.
            batch_size: Examples in a step over all processes, a multiple of
                `process_count`.
            seed: Decides the order, in [0, 2**32).
            shuffle: Whether a dataset is read in a new order each time.
            process_index: Which part of each batch is ours.
            process_count: Number of parts.

        Raises:
            DataError: If a dataset has fewer examples than one batch needs.
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
        import grain  # only who trains waits for it

        for dataset in datasets:
            if len(dataset) < batch_size:
                raise DataError(
                    f"{len(dataset)} training examples are fewer than one batch of "
                    f"{batch_size}: lower data.seq_len or train.batch_size, or give "
                    "more text in data.path"
                )
        self._read_options = grain.ReadOptions(N_THREADS, N_READ_AHEAD)

        def ordered(turn: int, dataset: Dataset) -> grain.MapDataset:
            source = grain.MapDataset.source(dataset)
            # An order of its own for each turn, or a dataset that has two turns would
            # be read twice in the same order.
            return source.seed((seed + turn) % 2**32).shuffle() if shuffle else source

        self._steps = grain.MapDataset.mix(
            [
                ordered(turn, dataset)
                .repeat(None)[:MAX_EXAMPLES]
                .batch(batch_size // process_count)[process_index::process_count]
                for turn, dataset in enumerate(datasets)
            ]
        )

    def __getitem__(self, step: int) -> Example:
        """Read this process's part of the batch of a step: each array stacked.

        Raises:
            IndexError: If the step is negative.
            DataError: If a file vanished, shrank or cannot be read.
        """
        if step < 0:
            raise IndexError(f"step must not be negative, got {step}")
        batch = self._steps[step]
        assert batch is not None, "only a filter leaves elements out"
        return batch

    def iterate(self, start_step: int, stop_step: int) -> Iterator[Example]:
        """Yield the batches of `range(start_step, stop_step)`, read ahead by threads.

        The values are those of indexing, in order, however slow the datasets are.

        Raises:
            DataError: If a file vanished, shrank or cannot be read.
        """
        if start_step >= stop_step:
            return
        options = self._read_options
        batches = iter(self._steps[start_step:stop_step].to_iter_dataset(options))
        try:
            yield from batches
        finally:
            batches.close()
