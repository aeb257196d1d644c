"""Train a model: `titans-train --config configs/mac.toml`."""

from pathlib import Path

import click

from titans_eqx.commands.command import PATH, command
from titans_eqx.commands.huge_pages import use_huge_pages
from titans_eqx.commands.loading import loading
from titans_eqx.config import load_config, to_toml
from titans_eqx.terminal.last_words import silence_runtime


@command()
@click.option("--config", "config_path", type=PATH, help="TOML file of the run.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set one key, as in --set model.d_model=256; may be repeated.",
)
@click.option(
    "--run-dir", type=PATH, help="Folder of the run. [default: runs/<config>]"
)
@click.option("--fresh", is_flag=True, help="Move earlier results aside, start over.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard events too.")
@click.option(
    "--profile",
    metavar="FIRST:COUNT",
    help="Record so many steps for a profiler, in RUN/profile.",
)
@click.option("--dry-run", is_flag=True, help="Print sizes and devices, and stop.")
@click.option("--doctor", is_flag=True, help="Test this machine, and stop.")
@click.option("--print-config", is_flag=True, help="Print all keys as TOML, and stop.")
def main(
    config_path: Path | None,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    fresh: bool,
    tensorboard: bool,
    profile: str | None,
    dry_run: bool,
    doctor: bool,
    print_config: bool,
) -> None:
    """Train a model; the same command again continues a run that was stopped."""
    if doctor:
        with loading(all_cpu_cores=True):
            from titans_eqx.commands.doctor import doctor as examine
        examine()
        return
    if config_path is None:
        raise click.MissingParameter(param_hint="'--config'", param_type="option")
    config = load_config(config_path, overrides)
    if print_config:
        click.echo(to_toml(config), nl=False)
        return
    if not dry_run:
        use_huge_pages()
        if config.distributed.is_joint:
            silence_runtime()
    with loading(all_cpu_cores=True):
        from titans_eqx.sharding.connection import connected
        from titans_eqx.training import TrainContext, run_summary, train
        from titans_eqx.training.profile_window import ProfileWindow
    window = None if profile is None else ProfileWindow.parse(profile)
    if dry_run:
        click.echo("\n".join(run_summary(TrainContext.build(config, abstract=True))))
    else:
        run_dir = run_dir or _default_run_dir(config_path)
        with connected(**config.distributed.model_dump()):
            train(
                config,
                run_dir,
                fresh=fresh,
                tensorboard=tensorboard,
                profile=window,
            )


def _default_run_dir(config_path: Path) -> Path:
    """`runs/recall/mac` for `configs/recall/mac.toml`, `runs/x` for `any/x.toml`."""
    folders = config_path.resolve().parent.parts
    inside = folders[folders.index("configs") + 1 :] if "configs" in folders else ()
    return Path("runs", *inside, config_path.stem)
