import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.refusal import assert_refused
from titans_eqx.config import to_toml
from titans_eqx.training.report import TrainingDisplay

ROOT = Path(__file__).parents[2]
BLOCK = 4096  # bytes in which the small file system gives room
MOUNT = 'mount -t tmpfs -o size=8m tmpfs "$1" && shift && exec "$@"'

TRAIN_ON_A_SMALL_DISK = """
import json, os, sys, time
from pathlib import Path
from click.testing import CliRunner
from titans_eqx.commands.train import main
from titans_eqx.training.report import TrainingDisplay

disk, block, config = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
run, ballast = disk / "run", disk / "ballast"
metrics = run / "metrics.jsonl"
report = TrainingDisplay.log


def end_block_of(path):
    note = json.dumps({"note": ""})
    missing = -(path.stat().st_size + len(note) + 1) % block
    with path.open("a") as file:
        file.write(json.dumps({"note": "x" * missing}) + "\\n")


def fill(spare, after_save_of):
    while not (run / "checkpoints" / after_save_of / "manifest.json").exists():
        time.sleep(0.01)
    end_block_of(metrics)
    free = os.statvfs(disk).f_bavail
    with ballast.open("wb") as file:
        file.write(bytes((free - spare) * block))


def train(on_step, happen):
    def log(self, step, metrics):
        report(self, step, metrics)
        if step == on_step:
            happen()

    TrainingDisplay.log = log
    result = CliRunner().invoke(main, ["--config", config, "--run-dir", str(run)])
    ballast.unlink(missing_ok=True)
    lines = metrics.read_text().splitlines()
    return {
        "code": result.exit_code,
        "output": result.stdout,
        "error": result.stderr,
        "steps": [json.loads(line).get("step") for line in lines],
        "files": sorted(path.name for path in (run / "checkpoints").iterdir()),
    }


results = [
    train(3, lambda: fill(spare=8, after_save_of="2")),
    train(5, lambda: fill(spare=0, after_save_of="4")),
    train(None, None),
]
assert results[-1]["code"] == 0, results
lines = metrics.read_text().splitlines()
document = json.loads((run / "checkpoints/6/metadata/metadata").read_text())
print(json.dumps([*results, [json.loads(line) for line in lines], document]))
"""


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """A command that starts another with a file system of 8 MiB, and its folder."""
    folder = tmp_path_factory.mktemp("disk")
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh"]
    command.append(str(folder))
    try:
        is_allowed = subprocess.run([*command, "true"], check=False).returncode == 0
    except FileNotFoundError:
        is_allowed = False
    if not is_allowed:
        pytest.skip("this system lets nobody mount a small file system")
    return command, folder


@pytest.fixture(scope="module")
def on_small_disk(small_disk, finished_run, tmp_path_factory):
    """What three starts of a run did, the disk being full during the first two."""
    command, folder = small_disk
    config = tmp_path_factory.mktemp("config") / "small.toml"
    config.write_text(to_toml(finished_run[0]))
    arguments = [sys.executable, "-c", TRAIN_ON_A_SMALL_DISK, folder, BLOCK, config]
    process = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""  # what libraries say there, and not through Python
    return json.loads(process.stdout)


@pytest.mark.slow
def test_a_save_on_a_full_disk_ends_the_run_and_keeps_the_step_before(on_small_disk):
    first = on_small_disk[0]
    assert first["code"] == 2
    (line,) = first["error"].splitlines()
    assert line.startswith("error: cannot save step 4 in ")
    assert "No space left on device" in line
    assert line.endswith(
        "Kept are the checkpoints of step 2; the same command goes on from there."
    )
    assert "2" in first["files"]
    assert "4" not in first["files"]


def test_metrics_on_a_full_disk_end_the_run_with_whole_lines(on_small_disk):
    second = on_small_disk[1]
    assert "continuing from step 2" in second["output"]
    assert second["code"] == 2
    (line,) = second["error"].splitlines()
    assert line.startswith("error: ")
    assert "run/metrics.jsonl: No space left on device. Kept are the" in line
    assert "of step 2, 4; the same command goes on from there." in line
    assert second["steps"] == [1, 2, 3, 4, 5, None]


def test_with_room_again_the_run_ends_as_if_nothing_had_been(
    on_small_disk, finished_run
):
    third, metrics, document = on_small_disk[2:]
    assert "continuing from step 4" in third["output"]
    assert third["code"] == 0
    reference = finished_run[1]
    path = reference / "checkpoints" / "6" / "metadata" / "metadata"
    assert document["checksums"] == json.loads(path.read_text())["checksums"]
    lines = (reference / "metrics.jsonl").read_text().splitlines()
    expected = [json.loads(line) for line in lines]
    for line in (*metrics, *expected):
        line.pop("tokens_per_second", None)
        line.pop("flops_per_second", None)
    assert metrics == expected


@pytest.mark.slow
def test_a_folder_removed_under_a_run_ends_it(
    small_config, train_quietly, monkeypatch, tmp_path
):
    run = tmp_path / "run"
    report = TrainingDisplay.log

    def log(self, step, metrics):
        report(self, step, metrics)
        if step == 3:
            shutil.rmtree(run)

    monkeypatch.setattr(TrainingDisplay, "log", log)
    message = f"{run}/metrics.jsonl: No such file or directory. There is no checkpoint"
    config = small_config(model__pattern="transformer", train__checkpoint_every=0)
    assert_refused(train_quietly, config, run, message=message)
    assert not run.exists()
