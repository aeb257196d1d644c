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
    if raises == "none":
        raise NoCheckpointError("no usable checkpoint.")
    raise RuntimeError("a bug")


def test_user_errors_are_one_line_and_bugs_keep_their_traceback():
    message = "error: there is no such file; name another."
    assert assert_refused(main, "--raises", "ours", message=message) == message
    assert_refused(main, "--raises", "none", message="no usable", exit_code=4)
    bug = CliRunner().invoke(main, [])
    assert isinstance(bug.exception, RuntimeError)
    assert "Fail as asked." in CliRunner().invoke(main, ["--help"]).stdout


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
