"""What all commands do around their body."""

import functools
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import click

from titans_eqx.commands.huge_pages import is_launcher
from titans_eqx.errors import UserError, os_reason
from titans_eqx.terminal import StopRequest, escape_controls

INTERRUPTED: Final = 130  # what shells expect after SIGINT
PATIENCE: Final = 0.5  # seconds in which most commands have ended after Ctrl-C


class _PathParameter(click.ParamType):
    """The path of a file or folder. An empty text would be the working directory."""

    name = "path"

    def convert(
        self,
        value: str | Path,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Path:
        """See `click.ParamType.convert`."""
        if value == "":
            self.fail('is empty; for the working directory write ".".', param, ctx)
        return Path(value)


PATH: Final = _PathParameter()


def command() -> Callable[[Callable[..., None]], click.Command]:
    """Make a click command of a function: its docstring is the help.

    A `UserError` becomes one line on standard error and its exit code, and so does what
    the operating system refuses (a full disk, a folder in the place of a file, a name
    too long); anything else is a bug and keeps its traceback. Ctrl-C ends the command,
    at the second time at once.
    """

    def decorate(body: Callable[..., None]) -> click.Command:
        @functools.wraps(body)
        def run(*arguments: object, **options: object) -> None:
            # A process may be started without them; what is said then goes nowhere.
            sys.stdout = sys.stdout or open(os.devnull, "w")
            sys.stderr = sys.stderr or open(os.devnull, "w")
            _silence_failed_saves()
            try:
                with StopRequest(
                    _say_stopping,
                    signals=(signal.SIGINT,),
                    raises=True,
                    patience=PATIENCE,
                ):
                    body(*arguments, **options)
            except UserError as error:
                _exit(error)
            except BrokenPipeError:  # whoever read the output has gone; click's to end
                raise
            except OSError as error:
                _exit(UserError(f"{os_reason(error)}."))
            except KeyboardInterrupt:
                with suppress(OSError):
                    click.echo("stopped", err=True)
                    sys.stdout.flush()
                if is_launcher(sys.modules["__main__"]):
                    # Python would wait for the threads of an interrupted compiler.
                    os._exit(INTERRUPTED)
                sys.exit(INTERRUPTED)

        version = click.version_option(
            package_name="titans_eqx", prog_name="titans_eqx"
        )
        return version(click.command()(run))

    return decorate


def _say_stopping() -> None:
    click.echo("stopping; Ctrl-C again to quit now", err=True)


@functools.cache  # once for a process
def _silence_failed_saves() -> None:
    """Do not print what is said of a failed save but its exception.

    Orbax logs its defaults and its errors. Once the first file of a save cannot be
    written, it waits for no other, and each of them then complains, in a thread of
    tensorstore's, that nobody listens to it any more.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    report = sys.unraisablehook

    def report_others(unraisable: "sys.UnraisableHookArgs") -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = report_others


def _exit(error: UserError) -> NoReturn:
    click.echo(f"error: {escape_controls(str(error))}", err=True)
    sys.exit(error.exit_code)
