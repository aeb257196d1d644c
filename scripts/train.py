"""Train a model: `python scripts/train.py --config configs/mac.toml`."""

import sys
from pathlib import Path

import click

from titans_eqx.config import load_config, to_toml
from titans_eqx.errors import UserError
from titans_eqx.training import (
    describe,
    keep_compiled_programs,
    prepare,
    train,
    use_all_cpu_cores,
    use_huge_pages,
)


@click.command()
@click.option(
    "--config", "config_path", required=True, type=Path, help="TOML file of the run."
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set one key, as in --set model.d_model=256; may be repeated.",
)
@click.option(
    "--run-dir", type=Path, help="Folder of the run. [default: runs/<config>]"
)
@click.option("--fresh", is_flag=True, help="Move earlier results aside, start over.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard events too.")
@click.option("--dry-run", is_flag=True, help="Print sizes and devices, and stop.")
@click.option("--print-config", is_flag=True, help="Print all keys as TOML, and stop.")
def main(
    config_path: Path,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    fresh: bool,
    tensorboard: bool,
    dry_run: bool,
    print_config: bool,
) -> None:
    """Train a model; the same command again goes on where the run stopped."""
    try:
        config = load_config(config_path, overrides)
        if print_config:
            click.echo(to_toml(config), nl=False)
            return
        use_all_cpu_cores()
        keep_compiled_programs()
        if dry_run:
            click.echo("\n".join(describe(prepare(config, abstract=True))))
            return
        use_huge_pages(__file__)
        run_dir = run_dir or _default_run_dir(config_path)
        train(config, run_dir, fresh=fresh, tensorboard=tensorboard)
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


def _default_run_dir(config_path: Path) -> Path:
    """`runs/recall/mac` for `configs/recall/mac.toml`, `runs/x` for `any/x.toml`."""
    folders = config_path.resolve().parent.parts
    inside = folders[folders.index("configs") + 1 :] if "configs" in folders else ()
    return Path("runs", *inside, config_path.stem)


if __name__ == "__main__":
    main()
