import sys

from tests.refusal import assert_refused
from titans_eqx.commands.read_text import read_text


def test_a_closed_standard_input_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)  # as Python starts without one
    assert_refused(read_text, None, message="the standard input is closed; give a text")
