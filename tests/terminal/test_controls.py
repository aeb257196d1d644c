import sys
import unicodedata

import pytest

from titans_eqx.terminal import escape_controls

EVERYTHING = "".join(map(chr, range(sys.maxunicode + 1)))


def test_what_steers_a_terminal_is_escaped_and_nothing_else():
    lines = escape_controls("\n".join(EVERYTHING.replace("\n", ""))).split("\n")
    one_by_one = zip(EVERYTHING.replace("\n", ""), lines, strict=True)
    escaped = {character for character, line in one_by_one if character != line}
    assert escape_controls("\n") == "\n"
    kinds = {x: unicodedata.category(x) for x in EVERYTHING}
    controls = {x for x, kind in kinds.items() if kind == "Cc"} - set("\n\t")
    reordering = {
        x
        for x in EVERYTHING
        if unicodedata.bidirectional(x)
        in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    }
    surrogates = {x for x, kind in kinds.items() if kind == "Cs"}
    marks = set("\u061c\u200e\u200f\u2028\u2029")
    assert escaped == controls | reordering | surrogates | marks


def test_escapes_say_which_character_it_was():
    assert escape_controls("\x1b[2J\r\x9b\x7f\u202e\n\t€") == (
        r"\x1b[2J\r\x9b\x7f\u202e" + "\n\t€"
    )
    assert escape_controls("é€", "ascii") == r"\xe9\u20ac"


@pytest.mark.parametrize("cut", range(8))
def test_a_text_may_be_escaped_in_parts(cut):
    text = "a\x1b[31m\u2066b"
    parts = escape_controls(text[:cut]) + escape_controls(text[cut:])
    assert parts == escape_controls(text)
