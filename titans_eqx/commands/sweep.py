"""Train and measure a suite of runs: `titans-sweep --suite recall --out runs/sweep`."""

from pathlib import Path
from typing import Final

import click

from titans_eqx.commands.command import PATH, command
from titans_eqx.commands.huge_pages import use_huge_pages
from titans_eqx.commands.loading import loading
from titans_eqx.errors import UserError

# As in `evaluation.suites`, which would make `--help` wait for jax.
SUITES: Final = (
    "recall",
    "needle",
    "ablation",
    "rules",
    "text",
    "zoology",
    "mad",
    "states",
    "essays",
)
CONFIGS: Final = Path(__file__).parents[2] / "configs"  # in a checkout, else not there


@command()
@click.option(
    "--suite",
    "suite_name",
    required=True,
    type=click.Choice(SUITES),
    help="Which runs.",
)
@click.option("--out", required=True, type=PATH, help="Folder of the sweep.")
@click.option(
    "--only",
    multiple=True,
    help="Name of a run, or of a rule, task or model; repeatable. [default: all]",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    help="How many seeds to train each run with, the same for all. "
    "[default: recall, needle, ablation and rules 1, mad 4, others 3]",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set one key in all runs; may be repeated.",
)
@click.option(
    "--configs",
    type=PATH,
    default=CONFIGS,
    help="Folder of the configs. [default: that of the checkout]",
)
@click.option("--no-picture", is_flag=True, help="Write numbers only.")
def main(
    suite_name: str,
    out: Path,
    only: tuple[str, ...],
    seeds: int | None,
    overrides: tuple[str, ...],
    configs: Path,
    no_picture: bool,
) -> None:
    """Train and measure a suite; the same command again continues where it stopped."""
    if not configs.is_dir():
        raise UserError(
            f"there is no folder {configs}; name the folder configs of a checkout of "
            "titans_eqx with --configs."
        )
    use_huge_pages()
    with loading(all_cpu_cores=True):
        from titans_eqx.evaluation.suites import suite
        from titans_eqx.evaluation.sweep import sweep
    chosen = suite(suite_name, configs, overrides, seeds=seeds)
    names = dict.fromkeys(
        name for case in chosen.cases for name in (*case.groups, case.name)
    )
    for name in only:
        if name not in names:
            raise UserError(
                f"--only {name!r} is no run of the suite, which has {', '.join(names)}."
            )
    sweep(chosen, out, only=only, with_picture=not no_picture)
