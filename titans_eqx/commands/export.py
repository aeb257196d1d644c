"""Write a model as safetensors: `titans-export --run runs/mac --out exported`."""

from pathlib import Path

import click

from titans_eqx.checkpoint.model_folder import require_model
from titans_eqx.commands.command import PATH, command
from titans_eqx.commands.loading import loading
from titans_eqx.commands.trained_run import trained_run
from titans_eqx.files import probe_output
from titans_eqx.terminal import phase


@command()
@trained_run
@click.option("--out", required=True, type=PATH, help="New folder.")
def main(run_dir: Path, step: int | None, average: bool, out: Path) -> None:
    """Write weights (safetensors), config and tokenizer of a run to a new folder.

    What reads a run reads such a folder too, and train.init_from starts from it.
    """
    require_model(run_dir)
    probe_output(out / "model.safetensors", "--out")
    with loading():
        from titans_eqx.checkpoint.load_model import load_model, warn_of_damage
    with phase("loading the model"):
        loaded = load_model(run_dir, step=step, average=average)
    warn_of_damage(loaded)
    with phase("writing"):
        loaded.export(out)
    click.echo(f"step {loaded.step:,} of {run_dir} exported to {out}")
