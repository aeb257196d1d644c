import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from tests.refusal import assert_refused
from titans_eqx.checkpoint.load_model import load_model
from titans_eqx.commands import conversation, read_text
from titans_eqx.commands.conversation import Conversation
from titans_eqx.data import ByteTokenizer
from titans_eqx.generation import Sampling, Stream


class Words(ByteTokenizer):
    """Bytes, but for the white space around a text; counts what is decoded."""

    def __init__(self):
        self.n_decoded = 0

    def encode(self, text):
        return super().encode(text.strip())

    def decode(self, ids):
        self.n_decoded += len(ids)
        return super().decode(ids)


@pytest.fixture
def start(run_folder, monkeypatch):
    """A function that starts a conversation with some input, and words for tokens."""
    loaded = dataclasses.replace(load_model(run_folder), tokenizer=Words())

    def begin(text=b""):
        stdin = io.TextIOWrapper(io.BytesIO(text))
        monkeypatch.setattr(conversation.sys, "stdin", stdin)
        console = Console(quiet=True)
        begun = Conversation(loaded, Sampling(), console, n_tokens=5, session=None)
        return begun, loaded.tokenizer

    return begin


def test_a_line_without_a_token_is_asked_for_again(start, capsys):
    talk, _ = start(b"one\n   \ntwo\n")
    talk.converse(0)
    captured = capsys.readouterr()
    assert captured.out.count("\n") >= 2
    (line,) = captured.err.splitlines()
    assert line.startswith("the tokenizer makes no token of the text b'   ")


def test_a_line_without_end_is_refused(start, monkeypatch):
    monkeypatch.setattr(read_text, "MAX_TEXT_BYTES", 100)
    talk, _ = start(b"x" * 101)
    message = "a line of the standard input does not end after 100 bytes"
    assert_refused(talk.converse, 0, message=message)


@pytest.mark.parametrize("size", [1, 2, 3, 16])
def test_a_long_text_is_shown_whole_and_decoded_in_parts(
    start, monkeypatch, capsys, size
):
    text = 40 * "plain, é, €, \U0001f600 and \ufffd\ufffd, "
    ids = np.frombuffer(b"\xff\x80" + text.encode() + b"\xe2", np.uint8).astype(
        np.int32
    )
    blocks = [ids[i : i + size] for i in range(0, len(ids), size)]
    talk, words = start()
    monkeypatch.setattr(Stream, "write", lambda *_, **__: iter(blocks))
    talk.write(0)
    assert capsys.readouterr().out == f"\ufffd\ufffd{text}\n"
    assert words.n_decoded < 10 * len(ids)
