"""The commands of the benchmark, imported while that is named: it takes seconds."""

from rich.console import Console

from titans_eqx.commands.loading import loading

# The standard output is for the results alone.
with loading(console=Console(stderr=True)):
    from scripts.benchmark.commands import main as main
