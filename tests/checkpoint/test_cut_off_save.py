import os
import signal
import subprocess
import sys

import pytest

from tests.checkpoint.saved_steps import (
    TEMPLATE,
    remove_manifest,
    save_and_wait,
    save_steps,
)
from titans_eqx.checkpoint import store
from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.errors import CheckpointError

DIE_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
import jax.numpy as jnp
from titans_eqx.checkpoint import store
from titans_eqx.checkpoint.checkpoints import Checkpoints

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.save(1, {"model": {"weights": jnp.ones((64,))}}, {})
checkpoints.wait()
if sys.argv[2] == "before the manifest":
    store.write_manifest = die
checkpoints.save(2, {"model": {"weights": jnp.ones((1 << 22,))}}, {})
if sys.argv[2] == "during the write":
    die()
checkpoints.wait()
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["during the write", "before the manifest"])
def test_killed_save_leaves_the_step_before(tmp_path, moment):
    process = subprocess.run(
        [sys.executable, "-c", DIE_WHILE_SAVING, str(tmp_path), moment], check=False
    )
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "saving").read_text() == "2"
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore_latest(TEMPLATE)
        assert restored is not None
        assert restored.step == 1
        if moment == "before the manifest":
            assert "step 2 is damaged: the save was cut off" in str(restored.refused)
        checkpoints.save(2, TEMPLATE, {})
        assert checkpoints.steps() == [1, 2]
    leftovers = {path.name for path in tmp_path.iterdir()} - {"corrupt"}
    assert leftovers == {"1", "2"}


def test_very_first_save_cut_off_counts_as_never_saved(tmp_path):
    save_steps(tmp_path, 1)
    remove_manifest(tmp_path / "1")
    (tmp_path / "saving").write_text("1")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore_latest(TEMPLATE) is None
        checkpoints.save(1, TEMPLATE, {})
        assert checkpoints.restore_latest(TEMPLATE) is not None


def test_a_reader_cannot_tell_a_cut_off_save_from_one_under_way(tmp_path):
    save_steps(tmp_path, 1, 2)
    remove_manifest(tmp_path / "2")
    (tmp_path / "saving").write_text("2")
    message = "step 2 is damaged: the save was cut off{}; manifest.json is missing"
    for read_only, or_else in ((True, " or is still under way"), (False, "")):
        with Checkpoints(tmp_path, read_only=read_only) as checkpoints:
            restored = checkpoints.restore_latest(TEMPLATE)
        assert restored is not None
        assert restored.refused == (message.format(or_else),)


def test_a_pipe_in_place_of_the_mark_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "saving")
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.is_empty()


@pytest.mark.parametrize("name", ["write_durably", "write_manifest"])
def test_full_disk_surfaces_and_a_later_save_works(tmp_path, monkeypatch, name):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with Checkpoints(tmp_path) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(store, name, fail)
            with pytest.raises(CheckpointError, match="save step 1 .*No space left"):
                save_and_wait(checkpoints, 1)
        checkpoints.save(2, TEMPLATE, {})
        restored = checkpoints.restore_latest(TEMPLATE)
        assert restored is not None
        assert restored.step == 2
