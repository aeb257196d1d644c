"""Tokenizers: from the bytes of a text to token ids and back."""

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from titans_eqx.config import DataConfig
from titans_eqx.data.byte_level import byte_vocabulary
from titans_eqx.data.errors import DataError
from titans_eqx.files import read_regular

TOKENIZER: Final = "tokenizer.json"
BYTE_VALUES: Final = 256
MAX_TOKENIZER_BYTES: Final = 256 * 2**20
REPLACEMENT: Final = "\ufffd".encode()
END_TOKENS: Final = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "</s>",
    "<eos>",
    "<EOS>",
    "[EOS]",
)


@runtime_checkable
class Tokenizer(Protocol):
    """What the corpus and the text samples ask of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Every id is in `range(vocab_size)`."""
        ...

    @property
    def separator(self) -> int:
        """Id put between two documents of a corpus."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal for two tokenizers only if they encode alike."""
        ...

    @property
    def file_content(self) -> bytes | None:
        """The tokenizer.json that it was made of; None where there is no file."""
        ...

    def encode(self, text: bytes) -> np.ndarray:
        """Turn text into ids, of dtype `token_dtype(vocab_size)`."""
        ...

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn ids into text; what is no valid text becomes U+FFFD."""
        ...

    def decode_bytes(self, ids: np.ndarray) -> bytes:
        """Turn ids into the bytes of the text, valid or not where that is known."""
        ...


class ByteTokenizer:
    """One token per byte; the separator is byte 0, which no text file contains."""

    vocab_size: int = BYTE_VALUES
    separator: int = 0
    fingerprint: str = "bytes"
    file_content: None = None

    def encode(self, text: bytes) -> np.ndarray:
        """Turn text into its bytes, uint8."""
        return np.frombuffer(text, dtype=np.uint8)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Read ids as UTF-8; broken sequences and ids from 256 up become U+FFFD."""
        values = np.asarray(ids, dtype=np.int64).reshape(-1)
        is_byte = (values >= 0) & (values < BYTE_VALUES)
        # 0xFF occurs in no UTF-8 text, so it decodes to the replacement character.
        text = np.where(is_byte, values, 0xFF).astype(np.uint8).tobytes()
        return text.decode("utf-8", errors="replace")

    def decode_bytes(self, ids: np.ndarray) -> bytes:
        """Turn ids, all of them bytes, into those bytes."""
        return ids.astype(np.uint8).tobytes()


class FileTokenizer:
    """A `tokenizer.json` of the Hugging Face `tokenizers` library (extra `text`).

    Any bytes come back from a byte-level vocabulary; with others, what is not UTF-8 is
    read as replacement characters. The separator is the tokenizer's end-of-text id
    where it has one by a usual name, otherwise 0.
    """

    vocab_size: int
    separator: int
    fingerprint: str
    file_content: bytes

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Load a tokenizer.json.

        Raises:
            DataError: If the file is missing, too large or no tokenizer, or the
                `tokenizers` package is not installed.
        """
        path = Path(os.path.expanduser(path))
        content = _read_tokenizer_file(path)
        self._tokenizer = _parse_tokenizer(content, path)
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise DataError(f"the vocabulary of tokenizer {path} is empty")
        # Not the number of entries: a vocabulary may have holes.
        self.vocab_size = max(vocabulary.values()) + 1
        known = (vocabulary[name] for name in END_TOKENS if name in vocabulary)
        self.separator = next(known, 0)
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self.file_content = content
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._byte_vocabulary = byte_vocabulary(
            content, vocabulary, {one.content for one in added}
        )

    @property
    def is_byte_level(self) -> bool:
        """Whether each token stands for bytes of its own, wherever it is."""
        return self._byte_vocabulary is not None

    def encode(self, text: bytes) -> np.ndarray:
        """Turn text into ids, adding no special tokens."""
        if self._byte_vocabulary is None:
            return self._encode_text(text.decode("utf-8", errors="replace"))
        dtype = token_dtype(self.vocab_size)
        parts = [
            self._encode_text(part) if isinstance(part, str) else part.astype(dtype)
            for part in self._byte_vocabulary.split(text)
        ]
        return np.concatenate([np.zeros(0, dtype), *parts])

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn ids into text, special tokens included."""
        values = np.asarray(ids, np.int64).reshape(-1)
        if self._byte_vocabulary is not None:
            return self.decode_bytes(values).decode("utf-8", errors="replace")
        return self._tokenizer.decode(values.tolist(), skip_special_tokens=False)

    def decode_bytes(self, ids: np.ndarray) -> bytes:
        """Turn ids into the bytes they stand for; UTF-8 if they are not byte-level."""
        if self._byte_vocabulary is not None:
            return self._byte_vocabulary.decode(ids)
        return self.decode(ids).encode()

    def _encode_text(self, text: str) -> np.ndarray:
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return np.asarray(ids, dtype=token_dtype(self.vocab_size))


def load_tokenizer(name: str, fingerprint: str | None = None) -> Tokenizer:
    """Make a tokenizer: "bytes", or the path of a tokenizer.json.

    Args:
        name: One of these.
        fingerprint: What it has to have; None for any.

    Raises:
        DataError: If the file cannot be used as a tokenizer, or is another one.
    """
    tokenizer = ByteTokenizer() if name == "bytes" else FileTokenizer(name)
    if fingerprint not in (None, tokenizer.fingerprint):
        raise DataError(
            f"the tokenizer {name} is not the one that the tokens were made with "
            "(SHA-256); put that one there"
        )
    return tokenizer


def tokenizer_name(data: DataConfig, fingerprint: str | None) -> str:
    """What `load_tokenizer` is to load for the text that a config names.

    Args:
        data: The config.
        fingerprint: Of the tokenizer, where it is known. That of shards is the
            tokenizer.json beside them, unless data.tokenizer names another file.
    """
    is_named = data.source != "shards" or data.tokenizer != "bytes"
    if is_named or fingerprint == ByteTokenizer.fingerprint:
        return data.tokenizer
    return str(Path(data.shard_folder) / TOKENIZER)


def token_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """Bytes of the text that each token stands for; a separator stands for none.

    Returns:
        (vocab_size,) int64.
    """
    # Behind another token: at the start of a text a decoder drops spaces and marks.
    before = tokenizer.separator
    n_before = len(tokenizer.decode_bytes(np.array([before])))
    added = [
        tokenizer.decode_bytes(np.array([before, token]))[n_before:]
        for token in range(tokenizer.vocab_size)
    ]
    lengths = np.asarray([len(text) for text in added], np.int64)
    if isinstance(tokenizer, FileTokenizer) and not tokenizer.is_byte_level:
        # Without its neighbours a byte of a longer character is no text.
        lengths[[text == REPLACEMENT for text in added]] = 1
    lengths[tokenizer.separator] = 0
    return lengths


def can_load_tokenizer(name: str) -> bool:
    """Whether the file and the package that a tokenizer needs are there."""
    is_file = os.path.exists(os.path.expanduser(name))
    return name == "bytes" or (is_file and bool(importlib.util.find_spec("tokenizers")))


def token_dtype(vocab_size: int) -> np.dtype:
    """Return the smallest of uint8, uint16 and int32 that holds every id."""
    if vocab_size <= 2**8:
        return np.dtype(np.uint8)
    if vocab_size <= 2**16:
        return np.dtype(np.uint16)
    return np.dtype(np.int32)


def _read_tokenizer_file(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_TOKENIZER_BYTES)
    except FileNotFoundError as error:
        raise DataError(
            f"no tokenizer file at {path}; data.tokenizer is 'bytes' or the path of "
            "a tokenizer.json"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read tokenizer {path}: {error.strerror}") from error


def _parse_tokenizer(content: bytes, path: Path) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise DataError(
            f"reading tokenizer {path} needs the package 'tokenizers': "
            "pip install 'titans_eqx[text]'"
        ) from error
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{path} is not a tokenizer.json: {error}") from error
    # Settings for fixed-size model inputs, stored in many tokenizer files.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
