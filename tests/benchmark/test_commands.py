import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from scripts.benchmark.commands import main
from scripts.benchmark.isolation import Worker
from tests.refusal import assert_refused

ROOT = Path(__file__).parents[2]
SMALL = {
    "model.n_layers": 1,
    "model.vocab_size": 256,
    "model.memory.n_heads": 1,
    "model.memory.depth": 1,
    "model.memory.chunk_len": 8,
    "model.attention.n_heads": 1,
    "model.attention.segment_len": 8,
    "model.attention.window": 8,
}
SIZES = ["--d-model", "8", "--repeats", "1"]
SIZES += [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
SIMPLE = ["--set", "model.pattern=transformer"]  # sooner compiled
COMMANDS = {
    # Its cases are those of `memory` and `train`.
    "roofline": ["--length", "16", "--product-side", "16", *SIMPLE],
    "prefill": ["--length", "16", *SIMPLE],
    "decode": ["--length", "8", "--tokens", "2", *SIMPLE],
    "compile": ["--depth", "1", *SIMPLE],
}
PEER = """
import json, sys

case = json.loads(next(sys.stdin))["case"]
print(json.dumps({"tokens": 16, "parameters": 3, "software": "peer 1"}), flush=True)
values = {"run": 2.0, "peak": 9.0, "running peak": 5.0}
for line in sys.stdin:
    print(json.dumps({"value": values[json.loads(line)["do"]]}), flush=True)
"""


def run(*arguments):
    return CliRunner().invoke(main, list(arguments))


def rows_of(result):
    """The rows of a JSON report, all numbers in them found positive."""
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["rows"]
    for row in report["rows"]:
        for value in row.values():
            for number in value if isinstance(value, list) else [value]:
                assert isinstance(number, str) or 0 < number < math.inf, row
    return report["rows"]


def peer(folder, then):
    """What looks like an interpreter with titans-pytorch, and runs a script."""
    script, python = folder / "peer.py", folder / "python"
    script.write_text(then)
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exit 0\nexec {sys.executable} {script}\n'
    )
    python.chmod(0o755)
    return ["--peer-python", str(python)]


@pytest.fixture
def no_child(monkeypatch):
    """Fail if a case is measured."""

    def refuse(*arguments, **options):
        raise AssertionError("a process was started")

    monkeypatch.setattr(Worker, "__init__", refuse)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=() if command == "decode" else pytest.mark.slow)
        for command in COMMANDS
    ],
)
def test_command_measures(command):
    result = run(command, *COMMANDS[command], *SIZES, "--json", "-")
    rows = rows_of(result)
    assert json.loads(result.stdout)["command"] == command
    assert {len(row["runs"]) for row in rows} == {1}
    assert rows[0]["seconds"] == rows[0]["runs"][0]
    if command == "roofline":
        assert [row["case"] for row in rows] == ["memory_forward", "train"]
        assert rows[0]["fraction"] == pytest.approx(
            rows[0]["gflop_per_second"] / rows[0]["product_gflop_per_second"]
        )


@pytest.mark.slow
def test_results_are_a_table_and_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # workers start from anywhere
    path = tmp_path / "results.json"
    lengths = ["--length", "8", "--length", "16", "--form", "forward"]
    result = run("scaling", *lengths, *SIZES, *SIMPLE, "--json", str(path))
    assert result.exit_code == 0, result.output
    short, long = json.loads(path.read_text())["rows"]
    assert short["case"] == "forward"
    assert (short["length"], long["length"]) == (8, 16)
    assert short["time_per_token_over_8"] == 1
    assert long["time_per_token_over_8"] == pytest.approx(
        long["microseconds_per_token"] / short["microseconds_per_token"]
    )
    assert "tokens/s" in result.stdout
    assert "forward" in result.stdout


def test_peers_run_the_same_cases_and_are_compared(tmp_path):
    options = ["--case", "decode", "--decode-length", "8", *peer(tmp_path, PEER)]
    (row,) = rows_of(run("peers", *options, *SIZES, *SIMPLE, "--json", "-"))
    assert row["case"] == "decode"
    assert row["peer_runs"] == [2.0]
    assert row["parameters"][1] == 3
    assert row["running_mib"][1] == 5
    assert row["peer_tokens_per_second"] == 8
    assert row["speed_ratio"] == pytest.approx(row["tokens_per_second"] / 8)
    assert row["memory_ratio"] == pytest.approx(row["peak_mib"] / 9)


WRONG = {
    "repeats": (["memory", "--repeats", "0"], "--repeats must be at least 1, got 0"),
    "length": (["prefill", "--length", "0"], "data.seq_len must be >= 1, got 0"),
    "batch": (["train", "--batch", "-1"], "--batch must be at least 1, got -1"),
    "width": (
        ["train", "--d-model", "30"],
        "model.d_model must be a multiple of model.memory.n_heads, got 30 and 4",
    ),
    "variant": (["train", "--variant", "mca"], 'model.pattern must be one of "mac"'),
    "depth": (["compile", "--depth", "0"], "model.n_layers must be >= 1, got 0"),
    "key": (
        ["memory", "--set", "model.d_modle=8"],
        "model.d_modle is not a key; did you mean model.d_model?",
    ),
    "tokens": (["decode", "--tokens", "0"], "--tokens must be at least 1, got 0"),
    "side": (["roofline", "--product-side", "0"], "--product-side must be at least 1"),
    "json": (
        ["memory", "--json", f"{__file__}/results.json"],
        "results.json: Not a directory. Choose another with --json.",
    ),
    "json that is there": (
        ["memory", "--json", __file__],
        "test_commands.py exists; name another with --json.",
    ),
    "no interpreter": (
        ["peers", "--peer-python", "./none"],
        "cannot run --peer-python ./none: No such file or directory",
    ),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.usefixtures("no_child")
def test_wrong_option_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = WRONG[name]
    assert_refused(main, *arguments, message=message)


def test_launcher_shows_all_commands_from_another_folder(tmp_path):
    launched = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "bench.py"), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    for command in [*COMMANDS, "scaling", "peers"]:
        assert f"\n  {command} " in launched.stdout


def test_interpreter_without_the_peer_is_one_line(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # no packages
    python.chmod(0o755)
    message = "No module named 'titans_pytorch'; install titans-pytorch"
    assert_refused(main, "peers", "--peer-python", python, message=message)
