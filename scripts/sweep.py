"""Train and measure a suite of runs: `scripts/sweep.py --suite recall --out sweep`."""

import logging
import sys
from pathlib import Path

import click

from titans_eqx.errors import UserError
from titans_eqx.evaluation.sweep import suite, sweep
from titans_eqx.training import (
    keep_compiled_programs,
    use_all_cpu_cores,
    use_huge_pages,
)

CONFIGS = Path(__file__).parents[1] / "configs"


@click.command()
@click.option(
    "--suite",
    "suite_name",
    required=True,
    type=click.Choice(["recall", "needle", "ablation"]),
    help="Which runs.",
)
@click.option("--out", required=True, type=Path, help="Folder of the sweep.")
@click.option("--only", multiple=True, help="Name of a run; repeatable. [default: all]")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set one key in all runs; may be repeated.",
)
@click.option("--no-picture", is_flag=True, help="Write figures only.")
def main(
    suite_name: str,
    out: Path,
    only: tuple[str, ...],
    overrides: tuple[str, ...],
    no_picture: bool,
) -> None:
    """Train and measure a suite; the same command again goes on where it stopped."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells of its defaults
    try:
        use_all_cpu_cores()
        keep_compiled_programs()
        cases = suite(suite_name, CONFIGS, overrides)
        names = [case.name for case in cases]
        for name in only:
            if name not in names:
                raise UserError(
                    f"--only {name!r} is no run of the suite, which has "
                    f"{', '.join(names)}."
                )
        use_huge_pages(__file__)
        sweep(cases, out, only=only, with_picture=not no_picture)
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
