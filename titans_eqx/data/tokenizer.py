"""Tokenizers: from the bytes of a text to token ids and back."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from titans_eqx.data.errors import DataError
from titans_eqx.files import read_regular

BYTE_VALUES: Final = 256
MAX_TOKENIZER_BYTES: Final = 256 * 2**20
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

    Text that is not UTF-8 is read with replacement characters. The separator is
    the tokenizer's end-of-text id where it has one by a usual name, otherwise 0.
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
        content = _read_tokenizer_file(Path(path).expanduser())
        self._tokenizer = _parse_tokenizer(content, Path(path))
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise DataError(f"the vocabulary of tokenizer {path} is empty")
        # Not the number of entries: a vocabulary may have holes.
        self.vocab_size = max(vocabulary.values()) + 1
        known = (vocabulary[name] for name in END_TOKENS if name in vocabulary)
        self.separator = next(known, 0)
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self.file_content = content

    def encode(self, text: bytes) -> np.ndarray:
        """Turn text into ids, adding no special tokens."""
        decoded = text.decode("utf-8", errors="replace")
        ids = self._tokenizer.encode(decoded, add_special_tokens=False).ids
        return np.asarray(ids, dtype=token_dtype(self.vocab_size))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn ids into text, special tokens included."""
        values = [int(value) for value in np.asarray(ids).reshape(-1)]
        return self._tokenizer.decode(values, skip_special_tokens=False)

    def decode_bytes(self, ids: np.ndarray) -> bytes:
        """Turn ids into UTF-8 text."""
        return self.decode(ids).encode()


def load_tokenizer(name: str) -> Tokenizer:
    """Make the tokenizer that a config names: "bytes", or a path of a tokenizer.json.

    Raises:
        DataError: If the file cannot be used as a tokenizer.
    """
    return ByteTokenizer() if name == "bytes" else FileTokenizer(name)


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
