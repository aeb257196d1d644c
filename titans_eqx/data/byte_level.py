"""Byte-level vocabularies: every byte has a token, so any bytes can be encoded.

Such a vocabulary (GPT-2's form) writes each byte as a printable character. Libraries
take text alone, so bytes that are no UTF-8 are looked up here, and tokens are turned
back into bytes here, because text could not hold them.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import numpy as np

# How `surrogateescape` writes bytes that are no UTF-8.
_NOT_TEXT: Final = re.compile("([\udc80-\udcff]+)")


def _byte_characters() -> Iterator[str]:
    """The character of each byte: itself where it is printable, others from U+0100."""
    spare = 256
    for byte in range(256):
        if 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255:
            yield chr(byte)
        else:
            yield chr(spare)
            spare += 1


BYTE_CHARACTERS: Final = tuple(_byte_characters())
_BYTES: Final = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}


class ByteVocabulary:
    """The bytes of every token of a byte-level vocabulary, and the token of each."""

    def __init__(self, vocabulary: Mapping[str, int], added: Collection[str]) -> None:
        """Look up all tokens.

        Args:
            vocabulary: Ids by token, with one for each byte.
            added: Those that stand for their own text, such as `<|endoftext|>`.
        """
        self.byte_ids = np.array([vocabulary[one] for one in BYTE_CHARACTERS])
        self._bytes = {
            token_id: token.encode() if token in added else _token_bytes(token)
            for token, token_id in vocabulary.items()
        }

    def decode(self, ids: np.ndarray) -> bytes:
        """The bytes of tokens; ids without a token have none."""
        return b"".join(self._bytes.get(int(one), b"") for one in ids.reshape(-1))

    def split(self, text: bytes) -> Iterator[str | np.ndarray]:
        """Cut bytes into texts, and into ids for what is no text."""
        for part in _NOT_TEXT.split(text.decode("utf-8", errors="surrogateescape")):
            if _NOT_TEXT.fullmatch(part):
                raw = part.encode("utf-8", errors="surrogateescape")
                yield self.byte_ids[np.frombuffer(raw, np.uint8)]
            elif part:
                yield part


def byte_vocabulary(
    tokenizer_file: bytes, vocabulary: Mapping[str, int], added: Collection[str]
) -> ByteVocabulary | None:
    """The vocabulary of a tokenizer.json; None unless it is a byte-level one.

    A tokenizer that puts a space before every text is none: it could not be given a
    text in parts.
    """
    settings: dict[str, Any] = json.loads(tokenizer_file)
    outer = settings.get("pre_tokenizer") or {}
    steps = [outer, *outer.get("pretokenizers", ())]
    of_bytes = [one for one in steps if one.get("type") == "ByteLevel"]
    decoder = (settings.get("decoder") or {}).get("type")
    if (
        decoder != "ByteLevel"
        or not of_bytes
        or any(one.get("add_prefix_space", True) for one in of_bytes)
        or not vocabulary.keys() >= set(BYTE_CHARACTERS)
    ):
        return None
    return ByteVocabulary(vocabulary, added)


def _token_bytes(token: str) -> bytes:
    try:
        return bytes(_BYTES[character] for character in token)
    except KeyError:  # not made of bytes
        return token.encode()
