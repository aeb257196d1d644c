"""Two processes of two devices each against one process, through the command."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from titans_eqx.config import load_config
from titans_eqx.training import train

ROOT = Path(__file__).parents[2]
CONFIG = """
[model]
pattern = "transformer"
d_model = 8
n_layers = 1
attention = { n_heads = 2, window = 8, n_persistent = 2 }

[data]
path = "PATH"
seq_len = 16
eval_fraction = 0.2

[optimizer]
warmup_steps = 1

[train]
steps = 20
batch_size = 8
eval_every = 8
eval_examples = 6
checkpoint_every = 5
sample_every = 10
sample_len = 4
log_every = 1

[mesh]
fsdp = 4

[distributed]
coordinator = "localhost:PORT"
num_processes = 2
heartbeat_timeout = 10
"""
ALONE = ["distributed.num_processes=1", "distributed.process_id=0"]
TOLERANCE = 1e-5  # of a loss, relative: sums over devices have another order


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a config for two processes."""
    folder = tmp_path_factory.mktemp("processes")
    lines = (f"line {i} of the text {i * i % 97}\n" for i in range(200))
    (folder / "text.txt").write_text("".join(lines))
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    text = CONFIG.replace("PATH", str(folder / "text.txt")).replace("PORT", str(port))
    (folder / "small.toml").write_text(text)
    return folder


class Pair:
    """The same command twice, but for `distributed.process_id`."""

    def __init__(self, folder, run_dir, *overrides):
        four, two = (f"device_count={n}" for n in (4, 2))
        env = os.environ | {"XLA_FLAGS": os.environ["XLA_FLAGS"].replace(four, two)}
        command = [sys.executable, "scripts/train.py", "--run-dir", str(run_dir)]
        command += ["--config", str(folder / "small.toml")]
        command += [part for text in overrides for part in ("--set", text)]
        self.processes = [
            subprocess.Popen(
                [*command, "--set", f"distributed.process_id={process_id}"],
                cwd=ROOT,
                env=env | {"PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for process_id in range(2)
        ]

    def signal(self, number, process_id, at, once_there=None):
        """Send a signal to one process when the first one has said something.

        And once a file is there, which a save in the background may write later.
        """
        output = self.processes[0].stdout
        assert output is not None
        for line in output:
            if at in line:
                break
        while once_there is not None and not once_there.exists():
            assert self.processes[0].poll() is None
            time.sleep(0.01)
        self.processes[process_id].send_signal(number)

    def end(self):
        """Wait for both; exit codes, and what they print on each stream."""
        began = time.monotonic()
        try:
            said = [process.communicate(timeout=120) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        self.seconds = time.monotonic() - began
        self.codes = [process.returncode for process in self.processes]
        self.out, self.error = zip(*said, strict=True)


@pytest.fixture(scope="module")
def stopped(folder):
    """A run of two processes that has received SIGTERM in the second."""
    pair = Pair(
        folder, folder / "run", "mesh.fsdp=2"
    )  # which the devices of each share
    pair.signal(signal.SIGTERM, 1, at="compiling")
    pair.end()
    return pair, steps_saved(folder / "run")


@pytest.fixture(scope="module")
def killed(folder, stopped):
    """The same run gone on with, until its second process is killed."""
    pair = Pair(folder, folder / "run")
    pair.signal(signal.SIGKILL, 1, at="evaluating", once_there=manifest(folder, 5))
    pair.end()
    shutil.copytree(folder / "run", folder / "copy")
    return pair, steps_saved(folder / "run")


@pytest.fixture(scope="module")
def finished(folder, killed):
    """The same run gone on with, to its end."""
    pair = Pair(folder, folder / "run")
    pair.end()
    return pair


@pytest.fixture(scope="module")
def train_alone(folder):
    """A function that trains in this process and returns what it printed."""

    def run(name, *overrides):
        sets = [*ALONE, *overrides]
        with (
            jax.numpy_dtype_promotion("standard"),  # optax mixes integers and reals
            contextlib.redirect_stdout(io.StringIO()) as printed,
        ):
            train(load_config(folder / "small.toml", sets), folder / name)
        return printed.getvalue()

    return run


def manifest(folder, step):
    return folder / "run" / "checkpoints" / str(step) / "manifest.json"


def steps_saved(run_dir):
    manifests = (run_dir / "checkpoints").glob("*/manifest.json")
    return sorted(int(path.parent.name) for path in manifests)


def losses(run_dir):
    """The loss of each step, and the last evaluation's."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    *steps, last = map(json.loads, lines)
    assert [record["step"] for record in steps] == list(range(1, 21))
    return np.array([*(record["loss"] for record in steps), last["eval_loss"]])


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_the_same_step(stopped):
    pair, saved = stopped
    assert pair.codes == [0, 0]
    assert pair.error == ("", "")
    (step,) = re.findall(r"stopped and saved at step (\d+)", pair.out[0])
    assert saved == [int(step)]


@pytest.mark.slow
def test_a_killed_process_ends_the_other_with_one_line(killed):
    pair, saved = killed
    assert pair.codes[0] not in (0, None)
    assert pair.codes[1] == -signal.SIGKILL
    assert pair.seconds < 60
    (line,) = pair.error[0].splitlines()
    assert line.startswith("error: process 0 of 2 has ended early")
    assert 5 <= saved[-1] < 20


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["mesh.data=4", "mesh.data=1"])
def test_two_processes_train_as_one_does(folder, killed, finished, train_alone, mesh):
    assert finished.codes == [0, 0]
    assert finished.error == ("", "")
    assert f"continuing from step {killed[1][-1]}\n" in finished.out[0]
    train_alone(mesh, "mesh.fsdp=1", mesh)
    ours, alone = losses(folder / "run"), losses(folder / mesh)
    np.testing.assert_allclose(ours, alone, rtol=TOLERANCE)


@pytest.mark.slow
def test_process_0_alone_reports_and_writes(folder, finished):
    assert "step 20/20" in finished.out[0]
    assert "step" not in finished.out[1]
    assert (folder / "run" / "samples.txt").read_text().count("--- step") == 2
    names = {path.name for path in (folder / "run").iterdir()}
    assert names == {
        "checkpoints",
        "config.toml",
        "lock",
        "metrics.discarded.jsonl",
        "metrics.jsonl",
        "samples.txt",
    }


@pytest.mark.slow
def test_one_process_goes_on_where_two_were_killed(
    folder, killed, finished, train_alone
):
    printed = train_alone("copy", "mesh.fsdp=1", "mesh.data=1")
    assert f"continuing from step {killed[1][-1]}\n" in printed
    assert "changed" not in printed
    np.testing.assert_allclose(
        losses(folder / "copy"), losses(folder / "run"), rtol=TOLERANCE
    )
