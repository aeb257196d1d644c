import sys

import pytest

from scripts.benchmark.resident import forget_peak, peak_resident_bytes


def touched(n_bytes):
    block = bytearray(n_bytes)
    block[::4096] = b"x" * len(block[::4096])
    return block


def test_peak_memory_sees_what_was_allocated():
    before = peak_resident_bytes()
    n_bytes = before + 2**26  # more than was resident ever before
    touched(n_bytes)
    assert peak_resident_bytes() >= n_bytes
    assert before > 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep their peak")
def test_peak_memory_can_be_forgotten():
    n_bytes = peak_resident_bytes() + 2**26
    touched(n_bytes)
    forget_peak()
    assert peak_resident_bytes() < n_bytes
