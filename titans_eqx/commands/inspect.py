"""Look into memories: `titans-inspect --run runs/mac --text FILE`."""

import os
from pathlib import Path
from typing import Final

import click

from titans_eqx.checkpoint.model_folder import require_model
from titans_eqx.commands.command import PATH, command
from titans_eqx.commands.loading import loading
from titans_eqx.commands.read_text import read_text
from titans_eqx.commands.trained_run import trained_run
from titans_eqx.errors import UserError
from titans_eqx.files import probe_output, replacing, to_json
from titans_eqx.terminal import phase

TOKENS: Final = "tokens.jsonl"


@command()
@trained_run
@click.option("--text", required=True, type=PATH, help="Text that the model reads.")
@click.option(
    "--out",
    type=PATH,
    help="New folder for the results. [default: RUN/inspection/NAME OF TEXT]",
)
@click.option("--no-picture", is_flag=True, help="Write numbers only.")
def main(
    run_dir: Path,
    step: int | None,
    average: bool,
    text: Path,
    out: Path | None,
    no_picture: bool,
) -> None:
    """Record what the memories of a trained model do while it reads a text.

    Writes tokens.jsonl (one line for each token: loss, and for each layer and head
    surprise, gates and memory norm) and picture.png.
    """
    out = out or run_dir / "inspection" / text.stem
    inspect(run_dir, text, out, step=step, average=average, with_picture=not no_picture)


def inspect(
    run_dir: Path,
    text: Path,
    out: Path,
    *,
    step: int | None,
    average: bool = True,
    with_picture: bool,
) -> None:
    """Inspect a text and write the results into a new folder.

    Raises:
        UserError: If the run or the text cannot be used, or the folder exists.
    """
    content = read_text(text)
    if os.path.lexists(out):
        raise UserError(f"{out} exists; name a new folder with --out.")
    probe_output(out / TOKENS, "--out")
    require_model(run_dir)
    with loading():
        from titans_eqx.checkpoint.load_model import load_model, warn_of_damage
        from titans_eqx.commands.to_tokens import to_tokens
        from titans_eqx.evaluation.inspection import inspect_text, records
        from titans_eqx.evaluation.plots import plot_inspection, require_plots
    if with_picture:
        require_plots()
    with phase("loading the model"):
        loaded = load_model(run_dir, step=step, average=average, require_text=True)
    warn_of_damage(loaded)
    if set(loaded.config.model.blocks) == {"transformer"}:
        raise UserError(f"the model of {run_dir} has no memory to look into.")
    tokens = to_tokens(loaded.tokenizer, content)
    with phase("reading the text", total=len(tokens)) as advance:
        inspection = inspect_text(loaded.model, tokens, advance)
    table = list(records(inspection, tokens, loaded.tokenizer))
    try:
        out.mkdir(parents=True)
        with replacing(out / TOKENS) as file:
            for record in table:
                file.write(to_json(record))
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}.") from error
    if with_picture:
        texts = [record["text"] for record in table]
        with phase("drawing"):
            plot_inspection(inspection, texts, out / "picture.png")
    names = " and ".join(sorted(path.name for path in out.iterdir()))
    click.echo(f"read {len(tokens):,} tokens; {names} saved in {out}")
