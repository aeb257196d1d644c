import errno
import importlib
import runpy
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.refusal import assert_refused
from titans_eqx.checkpoint.errors import NoCheckpointError
from titans_eqx.commands.command import command
from titans_eqx.errors import UserError

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONSOLE_SCRIPTS = PROJECT["project"]["scripts"]


@command()
@click.option("--raises")
def main(raises):
    """Fail as asked."""
    if raises == "ours":
        raise UserError("there is no such file; name another.")
    if raises == "system":
        Path("n" * 400).read_bytes()
    if raises == "pipe":
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    if raises == "none":
        raise NoCheckpointError("no usable checkpoint.")
    raise RuntimeError("a bug")


def test_user_errors_are_one_line_and_bugs_keep_their_traceback():
    message = "error: there is no such file; name another."
    assert assert_refused(main, "--raises", "ours", message=message) == message
    assert_refused(main, "--raises", "none", message="no usable", exit_code=4)
    message = f"error: {'n' * 400}: File name too long."
    assert assert_refused(main, "--raises", "system", message=message) == message
    bug = CliRunner().invoke(main, [])
    assert isinstance(bug.exception, RuntimeError)
    assert "Fail as asked." in CliRunner().invoke(main, ["--help"]).stdout


def test_a_reader_of_the_output_that_goes_away_is_no_error():
    gone = CliRunner().invoke(main, ["--raises", "pipe"])
    assert (gone.exit_code, gone.output) == (1, "")


def test_a_process_may_be_started_without_outputs(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as ended:
        main(["--raises", "ours"])
    assert ended.value.code == 2
    sys.stdout.close()  # or Python warns of files that nobody closed
    sys.stderr.close()


@pytest.mark.parametrize("name", CONSOLE_SCRIPTS)
def test_every_console_script_is_a_command_with_a_version(name):
    module, attribute = CONSOLE_SCRIPTS[name].split(":")
    tool = getattr(importlib.import_module(module), attribute)
    result = CliRunner().invoke(tool, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.split() == ["titans_eqx,", "version", version("titans_eqx")]


def test_version_is_that_of_the_project():
    import titans_eqx

    assert titans_eqx.__version__ == PROJECT["project"]["version"]


LAUNCHERS = {
    "evaluate": "Measure a trained model",
    "generate": "Read a prompt",
    "inspect_memory": "Record what the memories",
    "sweep": "Train and measure",
    "train": "Train a model",
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers_run_their_command(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert LAUNCHERS[name] in capsys.readouterr().out
