"""Let a trained model continue a text: `titans-generate --run runs/mac`."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

import click
from rich.console import Console

from titans_eqx.checkpoint.model_folder import require_model
from titans_eqx.commands.command import PATH, command
from titans_eqx.commands.loading import loading
from titans_eqx.commands.read_text import read_text, require_stdin
from titans_eqx.commands.trained_run import trained_run
from titans_eqx.config.bounds import MAX_LEN
from titans_eqx.errors import UserError
from titans_eqx.files import link_target, locked, probe_output
from titans_eqx.terminal import phase


@command()
@trained_run
@click.option("--prompt", help="Text to continue. [default: standard input]")
@click.option("--prompt-file", type=PATH, help="File with the text to continue.")
@click.option("--read", "read_file", type=PATH, help="Text to read first.")
@click.option("--session", type=PATH, help="File that keeps the state of the stream.")
@click.option("--interactive", is_flag=True, help="Converse, line by line.")
@click.option(
    "--tokens", default=200, show_default=True, type=click.IntRange(0, MAX_LEN)
)
@click.option("--temperature", default=0.8, show_default=True, help="0 = likeliest.")
@click.option("--top-k", default=0, show_default=True, help="0 = all.")
@click.option("--top-p", default=1.0, show_default=True)
@click.option("--min-p", default=0.0, show_default=True)
@click.option("--stop", multiple=True, help="Token after which to end. Repeatable.")
@click.option("--raw", is_flag=True, help="Do not escape control characters.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1))
def main(
    run_dir: Path,
    step: int | None,
    average: bool,
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
    raw: bool,
    seed: int,
) -> None:
    """Read a prompt and continue it; --session remembers it for the next time."""
    if interactive and (prompt is not None or prompt_file is not None):
        raise UserError("--interactive reads its prompts itself; leave out --prompt.")
    if prompt is not None and prompt_file is not None:
        raise UserError("--prompt and --prompt-file exclude each other; give one.")
    if prompt == "":
        raise UserError("the prompt is empty; give at least one character.")
    if session is not None:
        session = link_target(session)
        if not session.absolute().parent.is_dir():
            raise UserError(f"--session {session}: there is no folder for it.")
        probe_output(session, "--session")
        click.get_current_context().with_resource(_held(session))
    elif read_file is not None and not (interactive or prompt or prompt_file):
        raise UserError(
            "what --read reads would be lost: keep it with --session, or go on from it "
            "with --prompt, --prompt-file or --interactive."
        )
    # All input is there before the first token is read.
    if interactive:
        require_stdin()
    book = None if read_file is None else read_text(read_file)
    text = None
    if prompt is not None:
        text = os.fsencode(prompt)
    elif prompt_file is not None or not (interactive or read_file):
        text = read_text(prompt_file)

    require_model(run_dir)
    console = Console(stderr=True)  # the standard output is for the text alone
    with loading(console=console):
        from titans_eqx.checkpoint.load_model import load_model, warn_of_damage
        from titans_eqx.commands.conversation import Conversation
        from titans_eqx.commands.to_tokens import to_token
        from titans_eqx.generation import Sampling
    with phase("loading the model", console=console):
        loaded = load_model(run_dir, step=step, average=average, require_text=True)
    warn_of_damage(loaded)
    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        stop_tokens=tuple(to_token(loaded.tokenizer, text) for text in stop),
    )
    conversation = Conversation(
        loaded, sampling, console, n_tokens=tokens, session=session, raw=raw
    )
    if book is not None:
        conversation.read(book)
        conversation.save()
    if text is not None:
        conversation.read(text)
        conversation.write(seed)
    if interactive:
        conversation.converse(seed)
    conversation.save()
    if session is not None:
        click.echo(f"the stream is saved in {session}", err=True)


def _held(session: Path) -> AbstractContextManager[None]:
    """Keep others from a session: of two, the last to save would undo the other."""
    in_use = UserError(
        f"the session {session} is in use by another titans-generate. Wait for it, "
        "stop it, or name another file with --session."
    )
    return locked(session.with_name(f".{session.name}.lock"), in_use)
