import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmark.case import Case, read_setting
from scripts.benchmark.isolation import BenchmarkError, Worker

ROOT = Path(__file__).parents[2]
CASE = Case(kind="decode", config=read_setting(["data.seq_len=8"]))
SERVING = """
import sys
from scripts.benchmark.serving import MIB, serve

def build(message):
    print("noise")
    n_drawn = message["case"]["n_drawn"]
    if message["platform"] != "cpu":
        raise ValueError("no such device.")
    return {"tokens": n_drawn, "modules": list(sys.modules)}, {"run": lambda: 0.5}

serve(build, iter([3 * MIB, 2 * MIB, 1 * MIB]).__next__, ValueError)
"""
COMMAND = (sys.executable, "-c", SERVING)


# In a process of its own: a worker of the tests may have had a larger peak already.
TOUCHING = """
from scripts.benchmark.serving import forget_peak, peak_resident_bytes

before = peak_resident_bytes()
n_bytes = before + 2**26  # more than was resident ever before
block = bytearray(n_bytes)
block[::4096] = b"x" * len(block[::4096])
print(before, n_bytes, peak_resident_bytes())
del block
forget_peak()
print(peak_resident_bytes())
"""


def test_case_is_built_and_its_tasks_are_answered():
    with Worker(CASE, command=COMMAND, platform="cpu") as worker:
        assert worker.facts["tokens"] == 1
        assert worker.run() == 0.5
        assert worker.number("peak") == 3  # that of building it
        assert worker.number("running peak") == 1


def test_refusal_is_told():
    with pytest.raises(BenchmarkError, match="no such device"):
        Worker(CASE, command=COMMAND, platform="tpu")


def test_other_interpreters_can_import_it():
    with Worker(CASE, command=COMMAND, platform="cpu") as worker:
        assert not {"jax", "numpy", "titans_eqx"} & set(worker.facts["modules"])


@pytest.fixture(scope="module")
def peaks():
    """The peak before a block, its bytes, and the peak with it and once forgotten."""
    command = [sys.executable, "-c", TOUCHING]
    printed = subprocess.check_output(command, cwd=ROOT, text=True)
    return [int(number) for number in printed.split()]


def test_peak_memory_sees_what_was_allocated(peaks):
    before, n_bytes, with_block, _ = peaks
    assert with_block >= n_bytes
    assert before > 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep their peak")
def test_peak_memory_can_be_forgotten(peaks):
    _, n_bytes, _, after = peaks
    assert after < n_bytes
