"""Text that others wrote, made harmless for a terminal."""

from typing import Final

# Marks that reorder the text around them, so that it reads as what it is not.
BIDIRECTIONAL: Final = (
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
LINE_ENDS: Final = "\u2028\u2029"
# C0 but for newline and tab, DEL, C1.
CONTROLS: Final = (set(range(0x20)) - {ord("\n"), ord("\t")}) | set(range(0x7F, 0xA0))

_ESCAPED: Final = {
    code: chr(code).encode("unicode_escape").decode()
    for code in CONTROLS | set(map(ord, BIDIRECTIONAL + LINE_ENDS))
}


def escape_controls(text: str, encoding: str = "utf-8") -> str:
    r"""Replace what could steer a terminal by its escape, such as `\x1b` for ESC.

    Character by character, so parts of a text may be escaped one by one.

    Args:
        text: Anything; newlines and tabs stay.
        encoding: Of the terminal; what it cannot show is escaped too.
    """
    return escape_unknown(text.translate(_ESCAPED), encoding)


def escape_unknown(text: str, encoding: str) -> str:
    """Replace what an encoding does not have by its escape."""
    return text.encode(encoding, "backslashreplace").decode(encoding)
