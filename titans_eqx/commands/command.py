"""What all commands do around their body."""

import functools
import logging
import sys
from collections.abc import Callable

import click

from titans_eqx.commands.compilation_cache import keep_compiled_programs
from titans_eqx.errors import UserError
from titans_eqx.sharding.mesh import use_all_cpu_cores


def command(
    *, all_cpu_cores: bool = False
) -> Callable[[Callable[..., None]], click.Command]:
    """Make a click command of a function: its docstring is the help.

    A `UserError` becomes one line on standard error and its exit code; anything else is
    a bug and keeps its traceback. Compiled programs outlive the process.

    Args:
        all_cpu_cores: Whether a CPU-only machine computes on all of its cores.
    """

    def decorate(body: Callable[..., None]) -> click.Command:
        @functools.wraps(body)
        def run(*arguments: object, **options: object) -> None:
            logging.getLogger("absl").setLevel(logging.ERROR)  # orbax logs its defaults
            keep_compiled_programs()
            if all_cpu_cores:
                use_all_cpu_cores()
            try:
                body(*arguments, **options)
            except UserError as error:
                click.echo(f"error: {error}", err=True)
                sys.exit(error.exit_code)

        version = click.version_option(
            package_name="titans_eqx", prog_name="titans_eqx"
        )
        return version(click.command()(run))

    return decorate
