"""The phase in which a command imports jax and all that needs it."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from titans_eqx.terminal import phase


@contextmanager
def loading(
    *, all_cpu_cores: bool = False, console: Console | None = None
) -> Iterator[None]:
    """Name the phase, set up jax, and let the block import the rest.

    That takes seconds, so a command first checks what it can without. Compiled programs
    outlive the process.

    Args:
        all_cpu_cores: Whether a CPU-only machine computes on all of its cores.
        console: Where the phase is named; the standard output by default.
    """
    with phase("loading jax", console=console):
        from titans_eqx.commands.compilation_cache import keep_compiled_programs
        from titans_eqx.sharding.mesh import use_all_cpu_cores

        keep_compiled_programs()
        if all_cpu_cores:
            use_all_cpu_cores()
        yield
