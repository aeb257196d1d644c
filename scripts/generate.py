"""Let a trained model go on from a text: `scripts/generate.py --run runs/mac`."""

import itertools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click
import jax.random as jr
import numpy as np
from rich.progress import Progress

from titans_eqx.errors import UserError
from titans_eqx.generation import Sampling, Stream, load_session, save_session
from titans_eqx.training import keep_compiled_programs
from titans_eqx.checkpoint.load_model import TrainedModel, load_reader


@click.command()
@click.option("--run", "run_dir", required=True, type=Path, help="Folder of the run.")
@click.option("--prompt", help="Text to go on from. [default: standard input]")
@click.option("--prompt-file", type=Path, help="File with the text to go on from.")
@click.option("--read", "read_file", type=Path, help="Text to read first, of any size.")
@click.option("--session", type=Path, help="File the stream goes on from.")
@click.option("--interactive", is_flag=True, help="Converse, line by line.")
@click.option("--tokens", default=200, show_default=True, type=click.IntRange(min=0))
@click.option("--temperature", default=0.8, show_default=True, help="0 = likeliest.")
@click.option("--top-k", default=0, show_default=True, help="0 = all.")
@click.option("--top-p", default=1.0, show_default=True)
@click.option("--min-p", default=0.0, show_default=True)
@click.option("--stop", multiple=True, help="Token after which to end. Repeatable.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1))
def main(
    run_dir: Path,
    prompt: str | None,
    prompt_file: Path | None,
    read_file: Path | None,
    session: Path | None,
    interactive: bool,
    tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    stop: tuple[str, ...],
    seed: int,
) -> None:
    """Read a prompt and go on from it; --session remembers it for the next time."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells of its defaults
    keep_compiled_programs()
    try:
        if interactive and (prompt is not None or prompt_file is not None):
            raise UserError(
                "--interactive reads its prompts itself; leave out --prompt"
            )
        if session is not None and not session.absolute().parent.is_dir():
            raise UserError(f"--session {session}: there is no folder for it.")
        # All input is there before the first token is read.
        book = None if read_file is None else _file_text(read_file)
        text = None if interactive else _prompt_text(prompt, prompt_file, read_file)
        trained = load_reader(run_dir)
        sampling = Sampling(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            stop_tokens=tuple(_single_token(trained, text) for text in stop),
        )
        state = None
        if session is not None and session.exists():
            state = load_session(session, trained.model)
        stream = Stream(trained.model, state)

        def save() -> None:
            if session is not None:
                save_session(session, trained.model, stream.state)

        if book is not None:
            _read_with_progress(stream, trained, book)
            save()
        if text is not None:
            stream.read(_tokens(trained, text))
            _write(stream, trained, tokens, sampling, seed)
        if interactive:
            _converse(stream, trained, tokens, sampling, seed, save)
        save()
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


def _tokens(trained: TrainedModel, text: bytes) -> np.ndarray:
    ids = trained.tokenizer.encode(text)
    if len(ids) == 0:
        raise UserError(f"the tokenizer makes no token of the text {text[:40]!r}.")
    return ids


def _single_token(trained: TrainedModel, text: str) -> int:
    ids = trained.tokenizer.encode(os.fsencode(text))
    if len(ids) != 1:
        raise UserError(
            f"--stop must be a single token of the model's tokenizer; {text!r} has "
            f"{len(ids)}."
        )
    return int(ids[0])


def _file_text(path: Path) -> bytes:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    if not text:
        raise UserError(f"{path} is empty; name a file with text in it.")
    return text


def _prompt_text(
    prompt: str | None, prompt_file: Path | None, read_file: Path | None
) -> bytes | None:
    """The prompt, or None where a text is only to be read into a session."""
    if prompt is not None and prompt_file is not None:
        raise UserError("--prompt and --prompt-file exclude each other; give one.")
    if prompt is not None:
        text = os.fsencode(prompt)
    elif prompt_file is not None:
        text = _file_text(prompt_file)
    elif read_file is not None:
        return None
    else:
        text = sys.stdin.buffer.read()
    if not text:
        raise UserError("the prompt is empty; give at least one character.")
    return text


def _read_with_progress(stream: Stream, trained: TrainedModel, text: bytes) -> None:
    ids = _tokens(trained, text)
    with Progress(transient=True) as progress:
        task = progress.add_task("reading", total=len(ids))
        stream.read(ids, lambda count: progress.advance(task, count))


def _converse(
    stream: Stream,
    trained: TrainedModel,
    tokens: int,
    sampling: Sampling,
    seed: int,
    save: Callable[[], None],
) -> None:
    """Each line is read, then the model goes on; the end of input or Ctrl-C ends it."""
    is_terminal = sys.stdin.isatty()
    for turn in itertools.count():
        if is_terminal:
            click.echo("> ", nl=False)
        try:
            line = sys.stdin.buffer.readline()
            if not line:
                return
            stream.read(_tokens(trained, line))
            _write(stream, trained, tokens, sampling, seed + turn)
        except KeyboardInterrupt:
            click.echo()
            return
        save()


def _write(
    stream: Stream, trained: TrainedModel, tokens: int, sampling: Sampling, seed: int
) -> None:
    """Show the text as it is made, also where a character spans several tokens."""
    shown, ids = "", np.zeros(0, np.int32)
    for piece in stream.write(tokens, key=jr.key(seed), sampling=sampling):
        ids = np.concatenate([ids, piece])
        # An unfinished character decodes to U+FFFD until its last token is there.
        text = trained.tokenizer.decode(ids).rstrip("\ufffd")
        click.echo(text[len(shown) :], nl=False)
        shown = text
    click.echo()


if __name__ == "__main__":
    main()
