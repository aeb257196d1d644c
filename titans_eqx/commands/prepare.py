"""Turn texts into token shards: `titans-prepare --path texts --out shards`."""

import os
import shlex
from pathlib import Path

import click

from titans_eqx.commands.command import PATH, command
from titans_eqx.errors import UserError
from titans_eqx.files import probe_output
from titans_eqx.terminal import phase


@command()
@click.option(
    "--path",
    "paths",
    multiple=True,
    help="File, folder or glob; repeatable. [default: Python's standard library]",
)
@click.option("--eval-path", "eval_paths", multiple=True, help="Held-out text.")
@click.option(
    "--eval-fraction",
    default=0.05,
    show_default=True,
    help="Share of documents held out without --eval-path.",
)
@click.option("--out", required=True, type=PATH, help="Folder of the shards.")
@click.option(
    "--tokenizer",
    help='"bytes", or a tokenizer.json. [default: a BPE is trained on the text]',
)
@click.option(
    "--vocab-size",
    type=click.IntRange(min=1),
    help="Most tokens of the BPE. [default: 8192]",
)
@click.option(
    "--shard-mib",
    default=64,
    show_default=True,
    type=click.IntRange(1, 2**20),
    help="MiB of text in a shard.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="That encode side by side. [default: one for each core]",
)
def main(
    paths: tuple[str, ...],
    eval_paths: tuple[str, ...],
    eval_fraction: float,
    out: Path,
    tokenizer: str | None,
    vocab_size: int | None,
    shard_mib: int,
    processes: int | None,
) -> None:
    """Encode texts once, for training without a tokenizer; killed, it goes on."""
    if tokenizer is not None and vocab_size is not None:
        raise UserError("--vocab-size has no effect with --tokenizer; leave it out.")
    probe_output(out / "manifest.json", "--out")
    with phase("starting"):
        from titans_eqx.data import PrepareSettings, open_shards, prepare
        from titans_eqx.sharding.mesh import usable_cores
    settings = PrepareSettings(
        path=paths or None,
        eval_path=eval_paths or None,
        eval_fraction=eval_fraction,
        tokenizer=tokenizer,
        vocab_size=vocab_size or PrepareSettings.vocab_size,
        shard_bytes=shard_mib * 2**20,
        n_processes=processes or usable_cores(),
    )
    prepare(out, settings)
    for corpus in open_shards(out):
        click.echo(
            f"{corpus.name}: {corpus.n_tokens:,} tokens for {corpus.n_bytes:,} bytes"
        )
    path = shlex.quote(f"data.path={os.fspath(out)}")
    click.echo(
        f"train on it with --set data.source=shards --set {path} "
        f"--set model.vocab_size={corpus.vocab_size}"
    )
