"""Batches depend on seed, step and row alone: not on processes, threads or speed."""

import threading
import time

import numpy as np
import pytest

from titans_eqx.data import AlternatingBatches, DataError, Rows, TrainBatches


class NumberedRows:
    """Rows of three copies of their own number."""

    def __init__(self, n_rows: int) -> None:
        self._n_rows = n_rows

    def __len__(self) -> int:
        return self._n_rows

    def __getitem__(self, index: int) -> np.ndarray:
        assert 0 <= index < self._n_rows
        return np.full(3, index, dtype=np.int32)


class SlowRows(NumberedRows):
    """Rows of which some take much longer than others."""

    def __getitem__(self, index: int) -> np.ndarray:
        time.sleep(0.02 if index % 3 == 0 else 0.0)
        return super().__getitem__(index)


class VanishingRows(NumberedRows):
    """Rows of which one cannot be read."""

    def __getitem__(self, index: int) -> np.ndarray:
        if index == 5:
            raise DataError("row 5 is gone")
        return super().__getitem__(index)


def order(batches: TrainBatches, n_steps: int) -> list[int]:
    return np.concatenate([batches[step][:, 0] for step in range(n_steps)]).tolist()


def test_batch_is_an_int32_array_of_rows() -> None:
    batches = TrainBatches(NumberedRows(10), 4, seed=0)
    assert isinstance(NumberedRows(10), Rows)
    assert batches[0].shape == (4, 3)
    assert batches[0].dtype == np.int32


@pytest.mark.parametrize("step", [0, 1, 7, 12345])
@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_any_number_of_processes_sees_the_same_global_batch(
    process_count: int, step: int
) -> None:
    rows = NumberedRows(13)
    parts = [
        TrainBatches(rows, 8, seed=3, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    assert {part.local_batch for part in parts} == {8 // process_count}
    together = np.concatenate([part[step] for part in parts])
    np.testing.assert_array_equal(together, TrainBatches(rows, 8, seed=3)[step])


def test_every_epoch_holds_every_row_once_in_a_new_order() -> None:
    # 7 rows in batches of 3: epochs end inside a batch.
    taken = order(TrainBatches(NumberedRows(7), 3, seed=1), n_steps=14)
    epochs = [taken[start : start + 7] for start in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_order_follows_the_seed_alone() -> None:
    rows = NumberedRows(50)
    first = order(TrainBatches(rows, 5, seed=1), 10)
    assert order(TrainBatches(rows, 5, seed=1), 10) == first
    assert order(TrainBatches(rows, 5, seed=2), 10) != first
    assert order(TrainBatches(rows, 10, seed=1), 5) == first


def test_steps_are_addressed_in_any_order() -> None:
    batches = TrainBatches(NumberedRows(20), 4, seed=0)
    forward = [batches[step] for step in range(8)]
    backward = [batches[step] for step in reversed(range(8))][::-1]
    np.testing.assert_array_equal(forward, backward)
    np.testing.assert_array_equal(batches[10**12], batches[10**12])


def test_one_row_is_enough_for_batches_of_one() -> None:
    assert order(TrainBatches(NumberedRows(1), 1, seed=0), 3) == [0, 0, 0]


@pytest.mark.parametrize("rows", [NumberedRows(11), SlowRows(11)])
def test_prefetched_batches_equal_indexed_ones(rows: NumberedRows) -> None:
    batches = TrainBatches(rows, 2, seed=4, process_index=1, process_count=2)
    prefetched = list(batches.iterate(5, 25))
    np.testing.assert_array_equal(prefetched, [batches[step] for step in range(5, 25)])


def test_iterating_on_from_the_middle_continues_the_stream() -> None:
    batches = TrainBatches(NumberedRows(11), 4, seed=4)
    whole = list(batches.iterate(0, 12))
    halves = [*batches.iterate(0, 5), *batches.iterate(5, 12)]
    np.testing.assert_array_equal(halves, whole)
    assert list(batches.iterate(5, 5)) == []


def test_abandoned_iteration_leaves_no_thread() -> None:
    before = threading.active_count()
    iterator = TrainBatches(SlowRows(11), 4, seed=4).iterate(0, 100)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_error_of_the_rows_reaches_the_reader() -> None:
    batches = TrainBatches(VanishingRows(8), 4, seed=0)
    with pytest.raises(DataError, match="row 5 is gone"):
        list(batches.iterate(0, 4))


def test_fewer_rows_than_a_batch_is_an_error() -> None:
    with pytest.raises(DataError, match=r"3 rows .* one batch of 4: .*data\.seq_len"):
        TrainBatches(NumberedRows(3), 4, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a positive multiple .* got 0 for 1"),
        ({"process_count": 3}, "positive multiple .* got 4 for 3"),
        ({"process_index": 1}, r"process_index must be in \[0, 1\), got 1"),
        ({"seed": -1}, r"data.seed must be in \[0, 2\*\*32\), got -1"),
        ({"seed": 2**32}, "data.seed must be in"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TrainBatches(NumberedRows(9), **({"batch_size": 4, "seed": 0} | options))


def test_negative_step_is_refused() -> None:
    with pytest.raises(IndexError, match="must not be negative, got -1"):
        TrainBatches(NumberedRows(9), 4, seed=0)[-1]


def test_kinds_of_batches_take_turns() -> None:
    kinds = [TrainBatches(NumberedRows(n), 2, seed=4) for n in (7, 30)]
    turns = AlternatingBatches(kinds)
    expected = [kinds[step % 2][step // 2] for step in range(9)]
    for step, batch in enumerate(turns.iterate(0, 9)):
        np.testing.assert_array_equal(batch, expected[step])
        np.testing.assert_array_equal(turns[step], expected[step])
    later = list(turns.iterate(5, 9))
    np.testing.assert_array_equal(np.stack(later), np.stack(expected[5:]))
