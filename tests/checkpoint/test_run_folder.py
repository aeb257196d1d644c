import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.refusal import assert_refused
from titans_eqx.checkpoint.run_folder import (
    HOLDER_NAME,
    LOCK_NAME,
    RunFolder,
    RunFolderError,
)
from titans_eqx.config import RunConfig, load_config, to_toml

HOLD_LOCK = """
import sys
from pathlib import Path
from titans_eqx.checkpoint.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_folder_is_made_with_its_parents_and_only_a_lock(tmp_path):
    with RunFolder(tmp_path / "runs" / "mac") as run:
        assert run.checkpoints == run.path / "checkpoints"
        assert run.metrics == run.path / "metrics.jsonl"
        assert run.config == run.path / "config.toml"
        assert run.samples == run.path / "samples.txt"
        names = {entry.name for entry in run.path.iterdir()}
        assert names == {LOCK_NAME, HOLDER_NAME}
        holder = json.loads((run.path / HOLDER_NAME).read_text())
        assert holder == {"pid": os.getpid(), "host": socket.gethostname()}


def test_second_use_in_one_process_is_refused_until_released(tmp_path):
    with RunFolder(tmp_path):
        with pytest.raises(RunFolderError, match=f"in use by process {os.getpid()}"):
            RunFolder(tmp_path)
    RunFolder(tmp_path).release()


def test_live_process_is_named_and_its_death_frees_the_folder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RunFolderError, match=f"in use by process {process.pid} "):
            RunFolder(tmp_path)
        process.kill()
    assert str(process.pid) in (tmp_path / HOLDER_NAME).read_text()
    RunFolder(tmp_path).release()


def test_lock_left_by_another_host_is_not_overridden(tmp_path):
    (tmp_path / HOLDER_NAME).write_text('{"pid": 7, "host": "elsewhere"}')
    for _ in range(2):
        with pytest.raises(RunFolderError, match="process 7 on elsewhere.*delete"):
            RunFolder(tmp_path)
    (tmp_path / HOLDER_NAME).unlink()
    RunFolder(tmp_path).release()


def test_unwritable_folder_gives_one_line(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(RunFolderError, match=r"cannot write .*Permission denied") as e:
        RunFolder(tmp_path)
    assert "\n" not in str(e.value)


def test_file_in_place_of_the_folder_gives_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot write to the run folder"):
        RunFolder(tmp_path / "file" / "run")


TAKEN = {
    "metrics.jsonl": Path.mkdir,
    "config.toml": Path.mkdir,
    "samples.txt": os.mkfifo,
    "metrics.discarded.jsonl": lambda path: path.symlink_to("nowhere"),
    "checkpoints": Path.touch,
    "tensorboard": Path.touch,
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_name_taken_by_something_else_is_refused_and_moved_away(tmp_path, name):
    TAKEN[name](tmp_path / name)
    with RunFolder(tmp_path) as run:
        kind = "folder" if TAKEN[name] == Path.touch else "file"
        message = f"{tmp_path / name} is not a {kind}, and the run needs the name"
        assert_refused(run.check_names, message=message)
        moved = run.start_fresh()
        assert moved is not None
        assert os.path.lexists(moved / name)
        run.check_names()


@pytest.mark.parametrize("name", ["a\0b", "n" * 400, "p/" * 2500])
def test_a_name_that_no_folder_can_have_gives_one_line(tmp_path, name):
    assert_refused(RunFolder, tmp_path / name, message="cannot write to the run folder")


def test_fresh_start_moves_results_and_nothing_else(tmp_path):
    with RunFolder(tmp_path) as run:
        assert run.start_fresh() is None
        for number in ("1", "2"):
            run.checkpoints.mkdir()
            (run.checkpoints / "step").write_text(number)
            run.metrics.write_text(number)
            (tmp_path / "mine.txt").write_text("the user's")
            moved = run.start_fresh()
            previous = tmp_path / "previous" / number
            assert moved == previous
            assert (previous / "checkpoints" / "step").read_text() == number
            assert (previous / "metrics.jsonl").read_text() == number
            assert not run.metrics.exists()
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names == {"lock", "previous", "mine.txt"}


OURS = RunConfig()
OTHER = RunConfig.model_validate({"train": {"seed": 7}})


@pytest.mark.parametrize("is_new", [True, False])
def test_a_config_that_says_the_same_keeps_its_comments(tmp_path, is_new):
    (tmp_path / "config.toml").write_text("# mine\ntrain.seed = 7")
    (tmp_path / "metrics.jsonl").touch()
    with RunFolder(tmp_path) as run:
        assert run.write_config(OTHER, is_new=is_new) is None
    assert (tmp_path / "config.toml").read_text() == "# mine\ntrain.seed = 7"
    assert (tmp_path / "metrics.jsonl").exists()


def test_a_new_run_moves_what_was_measured_of_lost_weights(tmp_path):
    (tmp_path / "config.toml").write_text(to_toml(OURS))
    (tmp_path / "evaluation").mkdir()
    with RunFolder(tmp_path) as run:
        assert run.write_config(OURS, is_new=False) is None
        moved = run.write_config(OURS, is_new=True)
    assert moved is not None
    assert [path.name for path in moved.iterdir()] == ["evaluation"]
    assert (tmp_path / "config.toml").exists()


@pytest.mark.parametrize("there", ["# mine\n", to_toml(OURS), "[[", None])
def test_a_new_run_moves_results_of_another_aside(tmp_path, there):
    results = {"samples.txt": "--- step 3", "metrics.jsonl": "{}"}
    if there is not None:
        results["config.toml"] = there
    for name, text in results.items():
        (tmp_path / name).write_text(text)
    for name in ("checkpoints", "evaluation"):
        (tmp_path / name).mkdir()
    with RunFolder(tmp_path) as run:
        moved = run.write_config(OTHER, is_new=True)
        assert moved is not None
        assert moved == tmp_path / "previous" / "1"
        assert {path.name for path in moved.iterdir()} == {*results, "evaluation"}
        assert {name: (moved / name).read_text() for name in results} == results
        assert load_config(run.config) == OTHER
        # An open folder of checkpoints stays where it is.
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {"lock", HOLDER_NAME, "previous", "config.toml", "checkpoints"}


def test_folders_without_a_file_of_a_run_are_not_taken_for_results(tmp_path):
    (tmp_path / "evaluation").mkdir()
    with RunFolder(tmp_path) as run:
        assert run.write_config(OURS, is_new=True) is None
    assert (tmp_path / "evaluation").exists()


@pytest.mark.parametrize(
    ("there", "is_kept"), [(to_toml(OURS), False), ("# mine\n", True), ("[[", True)]
)
def test_a_run_that_goes_on_replaces_no_config_but_its_own(tmp_path, there, is_kept):
    (tmp_path / "config.toml").write_text(there)
    (tmp_path / "metrics.jsonl").touch()
    with RunFolder(tmp_path) as run:
        moved = run.write_config(OTHER, is_new=False)
        assert run.config.read_text() == to_toml(OTHER)
        assert run.metrics.exists()
    assert (moved is not None) == is_kept
    if moved is not None:
        assert [path.name for path in moved.iterdir()] == ["config.toml"]
        assert (moved / "config.toml").read_text() == there
