"""A stream on the terminal: texts are read into it, and what it writes is shown."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import jax.random as jr
import numpy as np
from rich.console import Console

from titans_eqx.checkpoint.load_model import LoadedModel
from titans_eqx.commands.read_text import read_bounded
from titans_eqx.commands.to_tokens import to_tokens
from titans_eqx.errors import UserError
from titans_eqx.generation import Sampling, Stream
from titans_eqx.generation.session import Session
from titans_eqx.terminal import escape_controls, escape_unknown, phase


class Conversation:
    """A stream of a trained model, with the file that keeps it."""

    def __init__(
        self,
        loaded: LoadedModel,
        sampling: Sampling,
        console: Console,
        *,
        n_tokens: int,
        session: Path | None,
        raw: bool = False,
    ) -> None:
        """Resume the session if its file exists, else start a fresh stream.

        Args:
            loaded: A model that reads text.
            sampling: How tokens are drawn.
            console: Where to tell what is being done.
            n_tokens: How many tokens the model writes in its turn.
            session: File for the state of the stream; None keeps none.
            raw: Show what the model writes as it is, with characters that steer the
                terminal.

        Raises:
            SessionError: If the session cannot be used.
        """
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self._sampling = sampling
        self._console = console
        self._n_tokens = n_tokens
        self._session = None if session is None else Session(session, self._model)
        self._raw = raw
        state = None
        if self._session is not None and self._session.exists():
            state = self._session.load()
        self._stream = Stream(self._model, state)

    def read(self, text: bytes) -> None:
        """Read a text into the stream."""
        ids = to_tokens(self._tokenizer, text)
        reading = phase("reading", total=len(ids), console=self._console)
        with reading as advance:
            self._stream.read(ids, advance)

    def write(self, seed: int) -> None:
        """Show text as it is drawn, also where a character spans several tokens."""
        # The last tokens up to where no character was unfinished are decoded again with
        # those after them: what a token becomes can depend on the token before it.
        shown, ids, n_context = "", np.zeros(0, np.int32), 0
        drawn = self._stream.write(
            self._n_tokens, key=jr.key(seed), sampling=self._sampling
        )
        for tokens in self._after_the_first(drawn):
            ids = np.concatenate([ids, tokens])
            # An unfinished character decodes to U+FFFD until its last token is there.
            text = self._tokenizer.decode(ids)
            finished = text.rstrip("\ufffd")
            self._show(finished[len(shown) :])
            shown = finished
            if finished == text:
                ids = ids[n_context:]
                shown, n_context = self._tokenizer.decode(ids), len(ids)
        click.echo()

    def _after_the_first(self, drawn: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The same tokens; what has to be compiled for the first ones is a phase."""
        with phase("starting to write", console=self._console):
            first = next(drawn, None)
        if first is not None:
            yield first
            yield from drawn

    def _show(self, text: str) -> None:
        encoding = sys.stdout.encoding
        if self._raw:
            # With color, or click leaves out escapes.
            click.echo(escape_unknown(text, encoding), nl=False, color=True)
        else:
            click.echo(escape_controls(text, encoding), nl=False)

    def converse(self, seed: int) -> None:
        """Answer each line of the input; its end or Ctrl-C ends the conversation.

        Raises:
            UserError: If a line is too long.
            SessionError: If the session's file cannot be written.
        """
        is_terminal = sys.stdin.isatty()
        for turn in itertools.count():
            if is_terminal:
                click.echo("> ", nl=False)
            try:
                line = read_bounded(
                    sys.stdin.buffer.readline, "a line of the standard input"
                )
                if not line:
                    return
                try:
                    self.read(line)
                except UserError as error:
                    click.echo(f"{escape_controls(str(error))} Try another.", err=True)
                    continue
                self.write(seed + turn)
            except KeyboardInterrupt:
                click.echo()
                return
            self.save()

    def save(self) -> None:
        """Write the state of the stream to the session's file.

        Raises:
            SessionError: If it cannot be written.
        """
        if self._session is not None:
            self._session.save(self._stream.state)
