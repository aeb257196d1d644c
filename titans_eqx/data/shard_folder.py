"""Folders of shards: texts prepared once, for runs that need no tokenizer.

`manifest.json` says what was asked for and lists the shards of both sides; with the
hash of each it is complete. `tokenizer.json` is beside it, unless tokens are bytes.
"""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from titans_eqx.data.corpus import AbstractCorpus
from titans_eqx.data.errors import DataError
from titans_eqx.data.shard import Shard, open_shard
from titans_eqx.data.stream import TokenStream
from titans_eqx.data.tokenizer import token_dtype
from titans_eqx.files import read_regular, write_durably

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
MAX_MANIFEST_BYTES: Final = 64 * 2**20

FileName = Annotated[str, Field(pattern=r"^(train|eval)-[0-9]{5,9}\.tokens$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ListedShard(_Part):
    """A shard that is, or will be, in the folder."""

    file: FileName
    content: str  # fingerprint of what it is made of
    sha256: str | None = None  # of its content, once it is there


class Manifest(_Part):
    """What a folder of shards holds, or will hold."""

    format: Literal[1] = FORMAT
    request: str  # fingerprint of everything that the shards depend on
    tokenizer: str  # its fingerprint
    vocab_size: Annotated[int, Field(ge=1, le=2**31)]
    train: tuple[ListedShard, ...]
    held_out: tuple[ListedShard, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every shard is there."""
        return all(one.sha256 is not None for one in (*self.train, *self.held_out))

    def write(self, folder: Path) -> None:
        """Write it; an older one is replaced.

        Raises:
            OSError: If it cannot be written.
        """
        write_durably(folder / MANIFEST, self.model_dump_json(indent=1).encode())


class ShardCorpus(AbstractCorpus):
    """The tokens of the shards of one side of a folder."""

    def __init__(self, shards: Sequence[Shard], *, name: str) -> None:
        """Lay out the corpus of at least one shard, all of one tokenizer."""
        self.name = name
        self._shards = tuple(shards)
        headers = [one.header for one in shards]
        self._stream = TokenStream(
            [one.tokens for one in shards], dtype=np.dtype(headers[0].dtype)
        )
        self.n_bytes = sum(one.n_bytes for one in headers)
        content = " ".join(one.sha256 for one in headers)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()
        self.tokenizer_fingerprint = headers[0].tokenizer
        self.vocab_size = headers[0].vocab_size

    @functools.cached_property
    def document_starts(self) -> np.ndarray:
        """Index of the first token of each document, then `n_tokens`; int64.

        Raises:
            DataError: If a file vanished, was changed or cannot be read.
        """
        parts = [
            start + one.document_starts
            for start, one in zip(self._stream.starts, self._shards, strict=True)
        ]
        return np.concatenate([*parts, [self.n_tokens]])


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None if it has none.

    Raises:
        DataError: If it cannot be read, or is no manifest.
    """
    path = folder / MANIFEST
    try:
        content = read_regular(path, MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise DataError(f"{path} is damaged: {place}: {first['msg']}") from error


def complete_manifest(folder: Path) -> Manifest:
    """The manifest of a folder that `titans-prepare` has finished.

    Raises:
        DataError: If there is none, or it lacks a shard.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise DataError(
            f"{folder} is no folder of shards: it has no {MANIFEST}. Make one with "
            "titans-prepare"
        )
    if not (manifest.is_complete and manifest.train and manifest.held_out):
        raise DataError(
            f"the shards in {folder} are not complete: run the same titans-prepare "
            "again"
        )
    return manifest


def open_shards(folder: Path) -> tuple[ShardCorpus, ShardCorpus]:
    """Open the training and the held-out corpus of a folder; no tokenizer is needed.

    Raises:
        DataError: If the folder is not complete, or a shard is damaged or another one.
    """
    manifest = complete_manifest(folder)
    return (
        ShardCorpus(_side(folder, manifest, manifest.train), name="the training text"),
        ShardCorpus(
            _side(folder, manifest, manifest.held_out), name="the held-out text"
        ),
    )


def _side(
    folder: Path, manifest: Manifest, listed: Sequence[ListedShard]
) -> list[Shard]:
    shards = [open_shard(folder / one.file) for one in listed]
    expected = (
        manifest.tokenizer,
        manifest.vocab_size,
        token_dtype(manifest.vocab_size).name,
    )
    for one, shard in zip(listed, shards, strict=True):
        header = shard.header
        found = (header.tokenizer, header.vocab_size, header.dtype)
        if header.sha256 != one.sha256 or found != expected:
            raise DataError(
                f"{shard.path} is not the shard that {MANIFEST} lists; make the shards "
                "again in a new folder"
            )
    if not any(one.header.n_tokens for one in shards):
        raise DataError(f"the shards in {folder} have no tokens")
    if not all(one.header.n_bytes for one in shards):
        raise DataError(f"a shard in {folder} was made of no text")
    return shards
