"""The command behind `scripts/inspect.py`; that file says why it is here."""

import json
import logging
import sys
from pathlib import Path

import click

from titans_eqx.errors import UserError
from titans_eqx.evaluation.inspection import inspect_text, records
from titans_eqx.evaluation.plots import plot_inspection, require_plots
from titans_eqx.training import keep_compiled_programs
from titans_eqx.checkpoint.load_model import load_reader


@click.command()
@click.option("--run", "run_dir", required=True, type=Path, help="Folder of the run.")
@click.option("--text", required=True, type=Path, help="Text that the model reads.")
@click.option(
    "--out",
    type=Path,
    help="New folder for the results. [default: RUN/inspection/NAME OF TEXT]",
)
@click.option("--no-picture", is_flag=True, help="Write figures only.")
def main(run_dir: Path, text: Path, out: Path | None, no_picture: bool) -> None:
    """Watch the memories of a trained model while it reads a text.

    Writes tokens.jsonl (one line for each token: loss, and for each layer surprise,
    alpha, eta, theta and memory norm of each head) and picture.png.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells of its defaults
    keep_compiled_programs()
    try:
        inspect(
            run_dir, text, out or run_dir / "inspection" / text.stem, not no_picture
        )
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


def inspect(run_dir: Path, text: Path, out: Path, with_picture: bool) -> None:
    """Inspect a text and write the results into a new folder.

    Args:
        run_dir: Folder of the run whose model reads.
        text: File with the text.
        out: Folder to be made.
        with_picture: Whether to draw.

    Raises:
        UserError: If the run or the text cannot be used, or the folder exists.
    """
    try:
        content = text.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {text}: {error.strerror or error}.") from error
    if not content:
        raise UserError(f"{text} is empty; name a file with text in it.")
    if out.exists():
        raise UserError(f"{out} exists; name a new folder with --out.")
    if with_picture:
        require_plots()
    trained = load_reader(run_dir)
    if trained.config.model.variant == "transformer":
        raise UserError(f"the model of {run_dir} has no memory to look into.")
    tokens = trained.tokenizer.encode(content)
    inspection = inspect_text(trained.model, tokens)
    table = list(records(inspection, tokens, trained.tokenizer))
    try:
        out.mkdir(parents=True)
        with (out / "tokens.jsonl").open("w", encoding="utf-8") as file:
            for record in table:
                file.write(json.dumps(record) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}.") from error
    if with_picture:
        texts = [record["text"] for record in table]
        plot_inspection(inspection, texts, out / "picture.png")
    click.echo(f"{len(tokens):,} tokens; see {out}")
