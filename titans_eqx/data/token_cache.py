"""Token cache: documents encoded once into a flat file that can be mapped.

The file holds the tokens of all documents with separators between them, then their
number as 8 bytes, by which a damaged file is told from a whole one. It is written
under another name and renamed, so a reader never sees half of it. Delete the folder
at any time; it is made again.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from titans_eqx.data.documents import Document
from titans_eqx.data.errors import DataError
from titans_eqx.data.stream import FileRange
from titans_eqx.data.tokenizer import Tokenizer, token_dtype
from titans_eqx.files import replacing

_FOOTER_BYTES: Final = 8

_logger = logging.getLogger(__name__)


def cached_tokens(documents: Sequence[Document], tokenizer: Tokenizer) -> FileRange:
    """Encode documents, or find the file in which that was done before.

    Returns:
        Where the tokens of all documents are, of dtype `token_dtype(vocab_size)`.

    Raises:
        DataError: If a document cannot be read or the cache cannot be written.
    """
    key = _key(documents, tokenizer)
    path = _cache_folder() / f"{key}.tokens"
    itemsize = token_dtype(tokenizer.vocab_size).itemsize
    try:
        if _stored_length(path, itemsize) is None:
            _logger.info("encoding %d documents into %s", len(documents), path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                count = _write_tokens(file, documents, tokenizer)
                file.write(count.to_bytes(_FOOTER_BYTES, "little"))
        length = _stored_length(path, itemsize)
    except OSError as error:
        raise DataError(
            f"cannot keep tokens in {path.parent}: {error.strerror}; "
            "set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    if length is None:
        raise DataError(f"the token file {path} is damaged; delete it")
    return FileRange(path=path, offset=0, length=length)


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return Path(base).expanduser() / "titans_eqx"


def _key(documents: Sequence[Document], tokenizer: Tokenizer) -> str:
    digest = hashlib.sha256(tokenizer.fingerprint.encode())
    for one in documents:
        try:
            path, modified_ns = one.path.resolve(), one.path.stat().st_mtime_ns
        except OSError as error:
            raise DataError(f"cannot read {one.path}: {error.strerror}") from error
        text = [one.name, str(path), one.offset, one.length, modified_ns]
        digest.update(json.dumps(text).encode())
    return digest.hexdigest()


def _stored_length(path: Path, itemsize: int) -> int | None:
    """Return the number of tokens in a whole token file, None for any other."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _FOOTER_BYTES))
            length = int.from_bytes(file.read(_FOOTER_BYTES), "little")
    except FileNotFoundError:
        return None
    return length if size == length * itemsize + _FOOTER_BYTES else None


def _write_tokens(
    file: BinaryIO, documents: Sequence[Document], tokenizer: Tokenizer
) -> int:
    separator = np.array(tokenizer.separator, dtype=token_dtype(tokenizer.vocab_size))
    length = 0
    for index, document in enumerate(documents):
        if index:
            file.write(separator.tobytes())
            length += 1
        for text in _cut_between_lines(document.chunks()):
            tokens = tokenizer.encode(text)
            file.write(tokens.tobytes())
            length += len(tokens)
    return length


def _cut_between_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Regroup chunks so that long documents are cut after a line, not in a word."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        cut = rest.rfind(b"\n") + 1 or _last_character_start(rest)
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


def _last_character_start(text: bytes) -> int:
    start = len(text) - 1
    while start > max(0, len(text) - 4) and text[start] & 0xC0 == 0x80:
        start -= 1
    return start
