import os
import signal
import sys

import pytest

from scripts.benchmark.case import Case, read_setting
from scripts.benchmark.isolation import BenchmarkError, Worker, measure_workers

ANSWERING = """
import json, os, sys

case = json.loads(next(sys.stdin))["case"]
facts = {"tokens": case["config"]["data"]["seq_len"], "pid": os.getpid()}
print(json.dumps(facts), flush=True)
values = {"run": iter([3, 1, 2]), "peak": iter([7.5])}
values["running peak"] = iter([5])
for line in sys.stdin:
    print(json.dumps({"value": next(values[json.loads(line)["do"]])}), flush=True)
"""
CASE = Case(kind="decode", config=read_setting(["data.seq_len=8"]))


def worker(script):
    return Worker(CASE, command=(sys.executable, "-c", script))


def test_a_process_is_told_its_case_and_what_to_do():
    with worker(ANSWERING) as process:
        (measured,) = measure_workers([process], 3)
    assert measured.runs == (3, 1, 2)
    assert measured.tokens_per_second == 8 / 2
    assert (measured.peak_mib, measured.running_mib) == (7.5, 5)


def test_a_turn_begins_with_a_run_that_is_left_out():
    ours = ANSWERING.replace("[3, 1, 2]", "[9, 3, 8, 1]")
    theirs = ANSWERING.replace("[3, 1, 2]", "[7, 4, 6, 5]")
    with worker(ours) as first, worker(theirs) as second:
        measured = measure_workers([first, second], 2)
    assert [one.runs for one in measured] == [(3, 1), (4, 5)]


def test_processes_end_with_their_worker():
    with worker(ANSWERING) as process:
        os.kill(process.facts["pid"], 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process.facts["pid"], 0)


DEATHS = {
    "exit": ("raise SystemExit(3)", "the process ended with exit code 3"),
    "signal": (
        f"import os; os.kill(os.getpid(), {signal.SIGKILL.value})",
        "killed by signal 9, most likely because memory ran out",
    ),
    "refusal": (
        'print(\'{"error": "not at this size."}\', flush=True); input(); input()',
        "not at this size",
    ),
}


@pytest.mark.parametrize("name", DEATHS)
def test_what_a_process_dies_of_is_told(name):
    script, message = DEATHS[name]
    with pytest.raises(BenchmarkError, match=message):
        worker(script)


def test_a_death_in_a_run_is_told():
    script = ANSWERING.replace("iter([3, 1, 2])", "iter([])")
    with worker(script) as process, pytest.raises(BenchmarkError, match="exit code 1"):
        process.run()


def test_a_missing_program_is_told():
    with pytest.raises(BenchmarkError, match=r"cannot run \./none: No such file"):
        Worker(CASE, command=("./none",))
