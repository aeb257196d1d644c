"""What all commands do around their body."""

import functools
import logging
import signal
import sys
from collections.abc import Callable
from typing import Final

import click

from titans_eqx.errors import UserError
from titans_eqx.terminal import StopRequest

INTERRUPTED: Final = 130  # what shells expect after SIGINT
PATIENCE: Final = 0.5  # seconds in which most commands have ended after Ctrl-C


def command() -> Callable[[Callable[..., None]], click.Command]:
    """Make a click command of a function: its docstring is the help.

    A `UserError` becomes one line on standard error and its exit code; anything else is
    a bug and keeps its traceback. Ctrl-C ends the command, at the second time at once.
    """

    def decorate(body: Callable[..., None]) -> click.Command:
        @functools.wraps(body)
        def run(*arguments: object, **options: object) -> None:
            logging.getLogger("absl").setLevel(logging.ERROR)  # orbax logs its defaults
            try:
                with StopRequest(
                    _say_stopping,
                    signals=(signal.SIGINT,),
                    raises=True,
                    patience=PATIENCE,
                ):
                    body(*arguments, **options)
            except UserError as error:
                click.echo(f"error: {error}", err=True)
                sys.exit(error.exit_code)
            except KeyboardInterrupt:
                click.echo("stopped", err=True)
                sys.exit(INTERRUPTED)

        version = click.version_option(
            package_name="titans_eqx", prog_name="titans_eqx"
        )
        return version(click.command()(run))

    return decorate


def _say_stopping() -> None:
    click.echo("stopping; Ctrl-C again to quit now", err=True)
