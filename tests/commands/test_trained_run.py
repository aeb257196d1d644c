import shutil

import pytest
from click.testing import CliRunner

from tests.checkpoint.saved_steps import flip_bit
from tests.refusal import assert_refused
from titans_eqx.commands import evaluate, generate, inspect


@pytest.fixture(scope="module")
def two_steps(run_folder, tmp_path_factory):
    """A run with the same model as step 40 and, damaged, as step 41."""
    folder = tmp_path_factory.mktemp("two") / "run"
    shutil.copytree(run_folder, folder)
    shutil.copytree(folder / "checkpoints" / "40", folder / "checkpoints" / "41")
    flip_bit(folder / "checkpoints" / "41" / "model")
    return folder


READERS = {
    "generate": (generate.main, ["--prompt", "line"]),
    "evaluate": (evaluate.main, ["--task", "perplexity", "--no-picture"]),
    "inspect": (inspect.main, ["--text", __file__, "--no-picture"]),
}


@pytest.mark.parametrize("name", READERS)
def test_a_step_that_is_missing_or_damaged_is_refused(two_steps, name):
    command, options = READERS[name]
    run = [*options, "--run", two_steps, "--step"]
    message = f"no step 7 in {two_steps}/checkpoints; the steps there are 40, 41."
    assert_refused(command, *run, 7, message=message)
    message = f"step 41 in {two_steps}/checkpoints is damaged: model/"
    assert_refused(command, *run, 41, message=message, exit_code=4)


@pytest.mark.parametrize("name", READERS)
def test_a_run_without_a_usable_checkpoint_has_an_exit_code(two_steps, name, tmp_path):
    command, options = READERS[name]
    shutil.copytree(two_steps / "checkpoints" / "41", tmp_path / "checkpoints" / "41")
    message = "no usable checkpoint"
    run = [*options, "--run", tmp_path]
    assert_refused(command, *run, message=message, exit_code=4)


def test_an_earlier_step_is_used_with_a_warning_unless_it_was_asked_for(two_steps):
    run = ["--prompt", "line", "--tokens", "5", "--run", str(two_steps)]
    fallen_back = CliRunner().invoke(generate.main, run)
    asked_for = CliRunner().invoke(generate.main, [*run, "--step", "40"])
    assert (fallen_back.exit_code, asked_for.exit_code) == (0, 0)
    assert fallen_back.stdout == asked_for.stdout
    (warning,) = warnings(fallen_back)
    assert warning.startswith("warning: step 41 is damaged: model/")
    assert warning.endswith("; using step 40")
    assert warnings(asked_for) == []


def warnings(result):
    return [line for line in result.stderr.splitlines() if line.startswith("warning")]
