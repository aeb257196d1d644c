"""Token shards: encoded text in files that can be mapped.

A file is, little-endian:

    16 bytes      magic
    1,008 bytes   a header, JSON: see `ShardHeader`
    n_tokens      token ids, of the dtype that the header names
    to 8 bytes    zeros
    n_starts      int64: index of the first token of each document that starts here

A separator follows each document but the very last one, so shards read one after the
other are one stream. A file is written under another name and renamed: one that is
there is whole, unless the disk has damaged it.
"""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from titans_eqx.data.documents import Document
from titans_eqx.data.errors import DataError
from titans_eqx.data.stream import FileRange
from titans_eqx.data.tokenizer import Tokenizer, token_dtype
from titans_eqx.files import open_regular, replacing

VERSION: Final = 1
MAGIC: Final = b"titans.tokens\r\n\0"
HEADER_BYTES: Final = 1024  # magic included
START: Final = np.dtype("<i8")
HASHED_BYTES: Final = 2**20

Count = Annotated[int, Field(ge=0, le=2**62)]


class ShardHeader(BaseModel):
    """What a shard says about itself."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    version: Literal[1] = VERSION
    dtype: Literal["uint8", "uint16", "int32"]
    n_tokens: Count  # separators included
    n_starts: Count
    n_bytes: Count  # of raw text
    vocab_size: Count
    tokenizer: str  # its fingerprint
    content: str  # fingerprint of the texts, where they are, and the tokenizer
    sha256: str  # of all that follows the header

    @property
    def starts_offset(self) -> int:
        """Where in the file the starts of documents are."""
        end = HEADER_BYTES + self.n_tokens * np.dtype(self.dtype).itemsize
        return -(-end // START.itemsize) * START.itemsize

    @property
    def file_bytes(self) -> int:
        """Size of the whole file."""
        return self.starts_offset + self.n_starts * START.itemsize


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a document that goes into one shard."""

    text: Document
    is_start: bool  # of its document
    is_separated: bool  # whether a separator follows


@dataclass(frozen=True)
class Shard:
    """A shard whose header and size have been checked."""

    path: Path
    header: ShardHeader

    @property
    def tokens(self) -> FileRange:
        """Where the tokens are."""
        return FileRange(
            path=self.path, offset=HEADER_BYTES, length=self.header.n_tokens
        )

    @functools.cached_property
    def document_starts(self) -> np.ndarray:
        """Index of the first token of each document that starts here, int64.

        Raises:
            DataError: If they cannot be read, or are no such indices.
        """
        count = self.header.n_starts
        with _reading(self.path) as file:
            file.seek(self.header.starts_offset)
            content = file.read(count * START.itemsize)
        starts = np.frombuffer(content[: count * START.itemsize], START)
        starts = starts.astype(np.int64)
        inside = (starts >= 0) & (starts <= self.header.n_tokens)
        if len(starts) != count or not inside.all() or np.any(np.diff(starts) < 0):
            raise DataError(f"{self.path} is damaged: its documents have no order")
        return starts

    def has_its_bytes(self) -> bool:
        """Whether the content is what was written, by its SHA-256; reads all of it."""
        digest = hashlib.sha256()
        with _reading(self.path) as file:
            file.seek(HEADER_BYTES)
            while block := file.read(HASHED_BYTES):
                digest.update(block)
        return digest.hexdigest() == self.header.sha256


def one_piece_each(documents: Sequence[Document]) -> list[Piece]:
    """Whole documents, with a separator between two of them."""
    last = len(documents) - 1
    return [
        Piece(text=one, is_start=True, is_separated=index < last)
        for index, one in enumerate(documents)
    ]


def content_fingerprint(pieces: Sequence[Piece], tokenizer: str) -> str:
    """SHA-256 over where texts are, their sizes and times, and the tokenizer.

    Args:
        pieces: What is encoded.
        tokenizer: Fingerprint of what encodes it.

    Raises:
        DataError: If a document cannot be looked at.
    """
    digest = hashlib.sha256(tokenizer.encode())
    for piece in pieces:
        one = piece.text
        try:
            path, modified_ns = one.path.resolve(), one.path.stat().st_mtime_ns
        except OSError as error:
            raise DataError(f"cannot read {one.path}: {error.strerror}") from error
        place = [str(path), one.offset, one.length, modified_ns]
        about = [one.name, *place, piece.is_start, piece.is_separated]
        digest.update(json.dumps(about).encode())
    return digest.hexdigest()


def write_shard(
    path: Path,
    pieces: Sequence[Piece],
    tokenizer: Tokenizer,
    content: str,
) -> Shard:
    """Encode pieces of documents into a file, a block of text at a time.

    Args:
        path: The file, in a folder that is there.
        pieces: In order.
        tokenizer: Encodes them.
        content: Fingerprint to be found in the header.

    Raises:
        DataError: If a document cannot be read.
        OSError: If the file cannot be written.
    """
    dtype = token_dtype(tokenizer.vocab_size)
    stored = dtype.newbyteorder("<")
    starts: list[int] = []
    n_tokens = 0
    digest = hashlib.sha256()
    with replacing(path) as file:

        def put(content: bytes) -> None:
            digest.update(content)
            file.write(content)

        file.write(bytes(HEADER_BYTES))
        for piece in pieces:
            if piece.is_start:
                starts.append(n_tokens)
            for block in piece.text.blocks():
                tokens = tokenizer.encode(block)
                put(tokens.astype(stored, copy=False).tobytes())
                n_tokens += len(tokens)
            if piece.is_separated:
                put(np.array(tokenizer.separator, stored).tobytes())
                n_tokens += 1
        put(bytes(-file.tell() % START.itemsize))
        put(np.array(starts, START).tobytes())
        header = ShardHeader(
            dtype=dtype.name,  # pyright: ignore[reportArgumentType]
            n_tokens=n_tokens,
            n_starts=len(starts),
            n_bytes=sum(piece.text.length for piece in pieces),
            vocab_size=tokenizer.vocab_size,
            tokenizer=tokenizer.fingerprint,
            content=content,
            sha256=digest.hexdigest(),
        )
        text = json.dumps(header.model_dump()).encode()
        file.seek(0)
        file.write(MAGIC + text.ljust(HEADER_BYTES - len(MAGIC)))
    return Shard(path, header)


def open_shard(path: Path) -> Shard:
    """Check the header and the size of a shard; reads no tokens.

    Raises:
        DataError: If it is not there or cannot be read, is damaged or no shard.
    """
    with _reading(path) as file:
        start = file.read(HEADER_BYTES) or b""
        size = file.seek(0, 2)
    if not start.startswith(MAGIC):
        raise DataError(f"{path} is damaged, or no file of tokens")
    try:
        header = ShardHeader.model_validate_json(start[len(MAGIC) :])
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise DataError(f"the header of {path} is damaged: {reason}") from error
    if size != header.file_bytes:
        raise DataError(
            f"{path} is damaged: it has {size:,} bytes, written were "
            f"{header.file_bytes:,}"
        )
    return Shard(path, header)


def _reading(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
