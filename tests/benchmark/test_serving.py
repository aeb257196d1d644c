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
    b"x" * (64 * MIB)  # in use while building alone
    n_drawn = message["case"]["n_drawn"]
    if message["platform"] != "cpu":
        raise ValueError("no such device.")
    return {"tokens": n_drawn, "modules": list(sys.modules)}, {"run": lambda: 0.5}

serve(build, lambda: PEAK * MIB, ValueError)
"""


def command(peak):
    """A program that says it had so many MiB of an accelerator."""
    return (sys.executable, "-c", SERVING.replace("PEAK", str(peak)))


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
    with Worker(CASE, command=command(0), platform="cpu") as worker:
        assert worker.facts["tokens"] == 1
        assert worker.run() == 0.5


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep their peak")
def test_peak_of_building_is_no_part_of_that_while_running():
    with Worker(CASE, command=command(0), platform="cpu") as worker:
        measured = worker.measured((1.0,))
    assert measured.running_mib is not None
    assert 1 < measured.running_mib < measured.peak_mib - 32


def test_peak_while_running_is_unknown_on_an_accelerator():
    with Worker(CASE, command=command(3), platform="cpu") as worker:
        measured = worker.measured((1.0,))
    assert (measured.peak_mib, measured.running_mib) == (3, None)


def test_refusal_is_told():
    with pytest.raises(BenchmarkError, match="no such device"):
        Worker(CASE, command=command(0), platform="tpu")


def test_other_interpreters_can_import_it():
    with Worker(CASE, command=command(0), platform="cpu") as worker:
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
