"""The one check of how a user's mistake is refused: one line, no traceback."""

from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner


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
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
    else:
        with pytest.raises(UserError) as caught:
            action(*arguments)
        assert caught.value.exit_code == exit_code
        line = str(caught.value)
        assert "\n" not in line
    assert message in line
    return line
