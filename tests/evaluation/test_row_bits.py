import numpy as np
import pytest

from titans_eqx.errors import UserError
from titans_eqx.evaluation.repeats import contexts_of_rows, repeat_distances
from titans_eqx.evaluation.row_bits import (
    RowPart,
    read_row_bits,
    split_rows,
    tokens_of_repeat,
)


@pytest.fixture(scope="module")
def rows():
    """Bits, bytes and inputs of rows, the last of which has nothing near."""
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 3, (5, 200))
    inputs[-1] = np.arange(200)
    return rng.random((5, 200)), rng.integers(0, 4, (5, 200)), inputs


@pytest.fixture(scope="module")
def parts(rows):
    bits, n_bytes, inputs = rows
    found = split_rows(bits, n_bytes, contexts_of_rows(inputs, 4, 64))
    return {part.place: part for part in found}


def test_parts_are_ranges_and_kinds(parts):
    ends = [0, 32, 64, 128, 200]
    ranges = [(200, "all", *pair) for pair in zip(ends, ends[1:], strict=False)]
    kinds = ["all", "new", "near repeat", "far repeat"]
    assert list(parts) == [*ranges, *((200, kind, 0, 200) for kind in kinds)]


def test_each_part_has_the_text_of_its_name(parts, rows):
    bits, n_bytes, inputs = rows
    for row in range(len(bits)):
        distances = repeat_distances(inputs[row], 4)
        expected = {
            "new": distances == 0,
            "near repeat": (distances > 0) & (distances <= 64),
            "far repeat": distances > 64,
        }
        for kind, is_in in expected.items():
            part = parts[200, kind, 0, 200]
            assert part.bytes[row] == n_bytes[row][is_in].sum()
            assert part.bits[row] == pytest.approx(bits[row][is_in].sum())
    second = parts[200, "all", 32, 64]
    np.testing.assert_allclose(second.bits, bits[:, 32:64].sum(axis=1))
    assert second.bytes == n_bytes[:, 32:64].sum(axis=1).tolist()


def test_what_no_row_has_is_left_out():
    ones = np.ones((2, 20))
    counted = contexts_of_rows(np.tile(np.arange(20), (2, 1)), 4, 64)
    found = list(split_rows(ones, ones, counted))
    assert [part.context for part in found] == ["all", "new"]
    assert list(split_rows(ones, 0 * ones, counted)) == []


def test_a_repeat_of_bytes_is_four_with_separators_too():
    assert tokens_of_repeat(np.array([[1, 1, 1, 1], [1, 0, 1, 1]])) == 4
    assert tokens_of_repeat(np.array([[2, 3, 2, 0], [3, 2, 4, 2]])) == 2


def part(bits, n_bytes):
    return RowPart(length=9, context="x", start=0, stop=9, bits=bits, bytes=n_bytes)


def test_rows_of_equal_lengths_are_their_own_means():
    np.testing.assert_allclose(part([2, 4], [4, 4]).per_row(), [0.5, 1])


def test_the_mean_of_rows_is_that_of_all_bytes(parts):
    for one in parts.values():
        assert one.per_row().mean() == pytest.approx(sum(one.bits) / sum(one.bytes))


def test_the_spread_of_rows_is_that_of_drawing_them_again():
    rng = np.random.default_rng(1)
    n_bytes = rng.integers(0, 60, 200)
    bits = n_bytes * 0.7 + rng.normal(0, 1, 200)
    again = []
    for _ in range(2000):
        drawn = rng.integers(0, 200, 200)
        again.append(bits[drawn].sum() / n_bytes[drawn].sum())
    one = part(bits.tolist(), n_bytes.tolist()).per_row()
    # 2,000 draws know a standard deviation to 1 / sqrt(4,000).
    assert one.std(ddof=1) / 200**0.5 == pytest.approx(np.std(again), rel=0.06)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "results.json"
    # The second as written before it was said what a repeat was.
    for content in ('{"table": []}', '{"text": "a", "parameters": 1, "parts": []}'):
        path.write_text(content)
        with pytest.raises(UserError, match="not what a sweep has measured; remove it"):
            read_row_bits(path)
