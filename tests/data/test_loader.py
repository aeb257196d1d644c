"""Batches depend on seed, step and process alone: not on threads or speed."""

import threading
import time
from collections.abc import Iterable

import numpy as np
import pytest

from titans_eqx.data import DataError, Dataset, Example, TrainBatches


class Numbered:
    """A dataset of somebody else: a series that tells its number, and a label."""

    def __init__(self, n_examples: int, n_times: int = 3) -> None:
        self._n_examples = n_examples
        self._n_times = n_times

    def __len__(self) -> int:
        return self._n_examples

    def __getitem__(self, index: int) -> Example:
        assert 0 <= index < self._n_examples
        series = np.full((self._n_times, 2), index, dtype=np.float32)
        return {"series": series, "labels": np.array(index)}


class Slow(Numbered):
    """Some examples take much longer than others."""

    def __getitem__(self, index: int) -> Example:
        time.sleep(0.02 if index % 3 == 0 else 0.0)
        return super().__getitem__(index)


class Vanishing(Numbered):
    """One example cannot be read."""

    def __getitem__(self, index: int) -> Example:
        if index == 5:
            raise DataError("example 5 is gone")
        return super().__getitem__(index)


def order(batches: TrainBatches, n_steps: int) -> list[int]:
    return np.concatenate([batches[i]["labels"] for i in range(n_steps)]).tolist()


def assert_equal(found: Iterable[Example], expected: Iterable[Example]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_a_batch_has_the_named_arrays_of_any_dataset() -> None:
    assert isinstance(Numbered(10), Dataset)
    batch = TrainBatches([Numbered(10)], 4, seed=0)[0]
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {
        "series": ((4, 3, 2), np.float32),
        "labels": ((4,), np.int64),
    }
    np.testing.assert_array_equal(batch["series"][:, 1, 1], batch["labels"])


@pytest.mark.parametrize("step", [0, 1, 7, 12345])
@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_any_number_of_processes_sees_the_same_global_batch(
    process_count: int, step: int
) -> None:
    data = [Numbered(13)]
    parts = [
        TrainBatches(data, 8, seed=3, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    labels = [part[step]["labels"] for part in parts]
    assert {len(one) for one in labels} == {8 // process_count}
    whole = TrainBatches(data, 8, seed=3)[step]["labels"]
    np.testing.assert_array_equal(np.concatenate(labels), whole)


def test_every_epoch_holds_every_example_once_in_a_new_order() -> None:
    # 7 examples in batches of 3: epochs end inside a batch.
    taken = order(TrainBatches([Numbered(7)], 3, seed=1), n_steps=14)
    epochs = [taken[start : start + 7] for start in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_order_follows_the_seed_alone() -> None:
    data = [Numbered(50)]
    first = order(TrainBatches(data, 5, seed=1), 10)
    assert order(TrainBatches(data, 5, seed=1), 10) == first
    assert order(TrainBatches(data, 5, seed=2), 10) != first
    assert order(TrainBatches(data, 10, seed=1), 5) == first


def test_steps_are_addressed_in_any_order() -> None:
    batches = TrainBatches([Numbered(20)], 4, seed=0)
    forward = [batches[step] for step in range(8)]
    backward = [batches[step] for step in reversed(range(8))][::-1]
    assert_equal(forward, backward)
    assert_equal([batches[10**12]], [batches[10**12]])


def test_one_example_is_enough_for_batches_of_one() -> None:
    assert order(TrainBatches([Numbered(1)], 1, seed=0), 3) == [0, 0, 0]


@pytest.mark.parametrize("data", [Numbered(11), Slow(11)])
def test_prefetched_batches_equal_indexed_ones(data: Numbered) -> None:
    batches = TrainBatches([data], 2, seed=4, process_index=1, process_count=2)
    assert_equal(batches.iterate(5, 25), [batches[step] for step in range(5, 25)])


def test_iterating_on_from_the_middle_continues_the_stream() -> None:
    batches = TrainBatches([Numbered(11)], 4, seed=4)
    whole = list(batches.iterate(0, 12))
    halves = [*batches.iterate(0, 5), *batches.iterate(5, 12)]
    assert_equal(halves, whole)
    assert list(batches.iterate(5, 5)) == []


def test_abandoned_iteration_leaves_no_thread() -> None:
    before = threading.active_count()
    iterator = TrainBatches([Slow(11)], 4, seed=4).iterate(0, 100)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_error_of_a_dataset_reaches_the_reader() -> None:
    batches = TrainBatches([Vanishing(8)], 4, seed=0)
    with pytest.raises(DataError, match="example 5 is gone"):
        list(batches.iterate(0, 4))


def test_fewer_examples_than_a_batch_is_an_error() -> None:
    with pytest.raises(
        DataError, match=r"3 training examples .* one batch of 4: .*data\.seq_len"
    ):
        TrainBatches([Numbered(3)], 4, seed=0)


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
        TrainBatches([Numbered(9)], **({"batch_size": 4, "seed": 0} | options))


def test_negative_step_is_refused() -> None:
    with pytest.raises(IndexError, match="must not be negative, got -1"):
        TrainBatches([Numbered(9)], 4, seed=0)[-1]


LENGTHS = [1, 1, 2, 1, 3]


def test_lengths_take_turns_in_the_given_order() -> None:
    batches = TrainBatches([Numbered(50, length) for length in LENGTHS], 2, seed=4)
    steps = range(23)
    found = [batch["series"].shape[1] for batch in batches.iterate(0, 23)]
    assert found == [LENGTHS[step % 5] for step in steps]
    assert_equal(batches.iterate(3, 23), [batches[step] for step in steps[3:]])
    # Far out, too: grain finds the turn by arithmetic.
    assert batches[5 * 10**12 + 2]["series"].shape[1] == 2


def test_every_turn_reads_its_dataset_from_the_start_in_an_order_of_its_own() -> None:
    # Batches of 4 out of 8: after two of its turns, a dataset is read through.
    turns = TrainBatches([Numbered(8)] * 3, 4, seed=7)
    orders = []
    for turn in range(3):
        steps = [turn, turn + 3]
        orders.append(np.concatenate([turns[i]["labels"] for i in steps]).tolist())
        assert sorted(orders[-1]) == list(range(8))
    assert len({tuple(one) for one in orders}) == 3


def test_turns_are_the_same_for_any_number_of_processes() -> None:
    datasets = [Numbered(9, length) for length in (1, 2)]
    parts = [
        TrainBatches(datasets, 4, seed=3, process_index=index, process_count=2)
        for index in range(2)
    ]
    whole = TrainBatches(datasets, 4, seed=3)
    for step in range(7):
        together = np.concatenate([part[step]["series"] for part in parts])
        np.testing.assert_array_equal(together, whole[step]["series"])
