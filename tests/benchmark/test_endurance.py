"""No stream, however long and unkind, breaks a model; the script reads longer ones."""

import numpy as np
import pytest

from scripts.benchmark.endurance import endurance, endure, small_model
from tests.refusal import assert_refused

N_BLOCKS = 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "memory", "dtype"),
    [
        ("mac", "delta", "float32"),
        ("lmm", "tnt", "bfloat16"),
    ],
)
def test_unkind_streams_leave_a_finite_state_and_one_program(pattern, memory, dtype):
    rows = list(endure(small_model(pattern, memory), N_BLOCKS, dtype))
    assert [row["stream"] for row in rows] == [
        "one byte",
        "extremes in turn",
        "random",
        "silences",
    ]
    for row in rows:
        assert row["programs"] == 1
        assert np.isfinite(row["largest_logit"])
        assert 0 < row["state_late"] < 10 * row["state_early"]
        assert row["growth_mib"] < 64


def test_less_than_a_block_is_refused():
    message = "--tokens must be at least 512, one block, got 0."
    assert_refused(endurance, "--tokens", 0, message=message)
