"""The one check of how a user's mistake is refused: one line, no traceback."""

import re
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner

PHASE = re.compile(r"\[\d+:\d\d\] ")  # a line that says what is being done


def assert_refused(
    action: click.Command | Callable,
    *arguments: object,
    message: str,
    exit_code: int = 2,
) -> str:
    """Run a command in this process, or call a function, and expect a `UserError`.

    Args:
        action: What is refused.
        *arguments: Of the command, turned into text, or of the function.
        message: A part of what is said.
        exit_code: Of the command.

    Returns:
        All that is said.
    """
    from titans_eqx.errors import UserError  # not at top level: see conftest.py

    if isinstance(action, click.Command):
        result = CliRunner().invoke(action, [str(argument) for argument in arguments])
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == exit_code
        lines = [x for x in result.output.splitlines() if not PHASE.match(x)]
        assert lines == result.stderr.splitlines()[-1:]
        (line,) = lines
        assert line.startswith("error: ")
    else:
        with pytest.raises(UserError) as caught:
            action(*arguments)
        assert caught.value.exit_code == exit_code
        line = str(caught.value)
        assert "\n" not in line
    assert message in line
    return line
