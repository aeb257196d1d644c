import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.refusal import PHASE

ROOT = Path(__file__).parents[2]
CONFIG = "data = { path = 'text.txt' }"
RUN = ["--run", "run"]
ARGUMENTS = {
    "train": ["--config", "small.toml"],
    "generate": [*RUN, "--prompt", "x"],
    "evaluate": [*RUN, "--task", "perplexity"],
    "inspect_memory": [*RUN, "--text", "text.txt"],
    "sweep": ["--suite", "recall", "--out", "out"],
}


@pytest.fixture
def folder(tmp_path):
    """What the commands look at before they import jax."""
    (tmp_path / "small.toml").write_text(CONFIG)
    (tmp_path / "text.txt").write_text("a text")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_first_line_comes_before_jax(folder, name):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *ARGUMENTS[name]],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert PHASE.match(line), line
    assert "loading jax" in line
    # The processor's time, which other work on the machine does not count for.
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 2
