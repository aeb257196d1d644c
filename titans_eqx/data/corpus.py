"""Corpus: documents as one stream of tokens that need not fit in memory."""

import abc
import hashlib
import json
import math

import numpy as np

from titans_eqx.data.documents import Document, TextPaths
from titans_eqx.data.errors import DataError
from titans_eqx.data.shard import Shard
from titans_eqx.data.split import find_texts
from titans_eqx.data.stream import FileRange, TokenStream
from titans_eqx.data.token_cache import cached_tokens
from titans_eqx.data.tokenizer import ByteTokenizer, Tokenizer, token_dtype


class AbstractCorpus(abc.ABC):
    """Texts as one stream of tokens, with a separator between two documents."""

    name: str  # what messages call it, such as "the training text"
    n_bytes: int  # of raw text, without separators
    fingerprint: str  # of what tells corpora apart; see each of them
    tokenizer_fingerprint: str
    vocab_size: int  # of the tokenizer
    _stream: TokenStream

    @property
    def n_tokens(self) -> int:
        """Separators included."""
        return self._stream.n_tokens

    @property
    @abc.abstractmethod
    def document_starts(self) -> np.ndarray:
        """Index of the first token of each document, then `n_tokens`; int64.

        Raises:
            DataError: If a file vanished, was changed or cannot be read.
        """

    def read(self, start: int, stop: int) -> np.ndarray:
        """Copy the tokens from `start` to before `stop`, as the tokenizer's dtype.

        Raises:
            IndexError: If the range is not inside the corpus.
            DataError: If a file vanished, shrank or cannot be read.
        """
        return self._stream.read(start, stop)

    def bits_per_byte(self, loss: float) -> float:
        """A loss in nats per token as bits for each byte of text.

        As many bytes to a token are taken as the whole corpus has; a part of it may
        have others.
        """
        return loss / math.log(2.0) * self.n_tokens / self.n_bytes


class Corpus(AbstractCorpus):
    """The tokens of documents that are there.

    Bytes are mapped from the documents themselves; ids of any other tokenizer come
    from a shard in the user's cache folder. The fingerprint is a hash of the documents'
    names and sizes and of the tokenizer.
    """

    def __init__(
        self,
        documents: tuple[Document, ...],
        tokenizer: Tokenizer,
        *,
        name: str = "the text",
    ) -> None:
        """Lay out the corpus; encodes the documents first unless tokens are bytes.

        Raises:
            DataError: If there is no document or encoding fails.
        """
        if not documents:
            raise DataError(f"{name} has no documents")
        self.name = name
        dtype = token_dtype(tokenizer.vocab_size)
        self._shard: Shard | None = None
        if isinstance(tokenizer, ByteTokenizer):
            ranges = [
                FileRange(path=one.path, offset=one.offset, length=one.length)
                for one in documents
            ]
            separator = tokenizer.separator
            self._stream = TokenStream(ranges, dtype=dtype, separator=separator)
        else:
            self._shard = cached_tokens(documents, tokenizer)
            self._stream = TokenStream([self._shard.tokens], dtype=dtype)
        self.n_bytes = sum(one.length for one in documents)
        self.fingerprint = _fingerprint(documents, tokenizer)
        self.tokenizer_fingerprint = tokenizer.fingerprint
        self.vocab_size = tokenizer.vocab_size

    @property
    def document_starts(self) -> np.ndarray:
        """Index of the first token of each document, then `n_tokens`; int64.

        Raises:
            DataError: If a file vanished, was changed or cannot be read.
        """
        shard = self._shard
        starts = self._stream.starts if shard is None else shard.document_starts
        return np.append(starts, self.n_tokens)


def open_corpora(
    source: str,
    path: TextPaths | None,
    eval_path: TextPaths | None,
    eval_fraction: float,
    tokenizer: Tokenizer,
) -> tuple[Corpus, Corpus]:
    """Open the training and the held-out corpus that a config names.

    Args:
        source: As for `find_texts`.
        path: The same.
        eval_path: The same.
        eval_fraction: The same.
        tokenizer: Of both corpora.

    Raises:
        DataError: If either side has no usable text.
    """
    train, evaluated = find_texts(source, path, eval_path, eval_fraction)
    return (
        Corpus(train, tokenizer, name="the training text"),
        Corpus(evaluated, tokenizer, name="the held-out text"),
    )


def _fingerprint(documents: tuple[Document, ...], tokenizer: Tokenizer) -> str:
    texts = [[one.name, one.offset, one.length] for one in documents]
    content = json.dumps([tokenizer.fingerprint, texts])
    return hashlib.sha256(content.encode()).hexdigest()
