"""Corpus: documents as one stream of tokens that need not fit in memory."""

import hashlib
import json
import math
from collections.abc import Iterator

import numpy as np

from titans_eqx.data.documents import Document, TextPaths, find_documents
from titans_eqx.data.errors import DataError
from titans_eqx.data.split import split_documents
from titans_eqx.data.stream import FileRange, TokenStream
from titans_eqx.data.token_cache import cached_tokens
from titans_eqx.data.tokenizer import ByteTokenizer, Tokenizer, token_dtype


class Corpus:
    """The tokens of some documents, with a separator between two of them.

    Bytes are mapped from the documents themselves; ids of any other tokenizer come
    from a flat file in the user's cache folder.
    """

    name: str  # what messages call it, such as "the training text"
    documents: tuple[Document, ...]
    n_tokens: int  # separators included
    n_bytes: int  # of raw text, without separators
    fingerprint: str  # hash of the documents' names and sizes and of the tokenizer

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
        self.documents = documents
        if isinstance(tokenizer, ByteTokenizer):
            ranges = [
                FileRange(path=one.path, offset=one.offset, length=one.length)
                for one in documents
            ]
        else:
            ranges = [cached_tokens(documents, tokenizer)]
        self._stream = TokenStream(
            ranges,
            dtype=token_dtype(tokenizer.vocab_size),
            separator=tokenizer.separator,
        )
        self.n_tokens = self._stream.n_tokens
        self.n_bytes = sum(one.length for one in documents)
        self.fingerprint = _fingerprint(documents, tokenizer)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Copy the tokens from `start` to before `stop`, as the tokenizer's dtype.

        Raises:
            IndexError: If the range is not inside the corpus.
            DataError: If a file vanished, shrank or cannot be read.
        """
        return self._stream.read(start, stop)

    def bits_per_byte(self, loss: float) -> float:
        """A loss in nats per token as bits for each byte that the tokens stand for.

        It can be compared between tokenizers and with compressors.
        """
        return loss / math.log(2.0) * self.n_tokens / self.n_bytes

    def text_bytes(self) -> Iterator[bytes]:
        """Yield the raw text in blocks of at most 1 MiB, `n_bytes` in all.

        Raises:
            DataError: If a file vanished, shrank or cannot be read.
        """
        for document in self.documents:
            yield from document.chunks()


def open_corpora(
    source: str,
    path: TextPaths | None,
    eval_path: TextPaths | None,
    eval_fraction: float,
    tokenizer: Tokenizer,
) -> tuple[Corpus, Corpus]:
    """Open the training and the held-out corpus that a config names.

    Args:
        source: "stdlib"; looked at only when `path` is None.
        path: File, folder, glob, or a list of these.
        eval_path: The held-out text in the same forms. Files that `path` names
            too are taken out of training. None: split off by document.
        eval_fraction: Share of the documents to hold out when `eval_path` is None.
        tokenizer: Of both corpora.

    Raises:
        DataError: If either side has no usable text.
    """
    documents = find_documents(source, path)
    if eval_path is None:
        train, eval_documents = split_documents(documents, eval_fraction)
    else:
        eval_documents = find_documents(source, eval_path)
        taken = {one.path.resolve() for one in eval_documents}
        train = tuple(one for one in documents if one.path.resolve() not in taken)
        if not train:
            raise DataError(
                "data.eval_path holds out every document; nothing is left to train on"
            )
    return (
        Corpus(train, tokenizer, name="the training text"),
        Corpus(eval_documents, tokenizer, name="the held-out text"),
    )


def _fingerprint(documents: tuple[Document, ...], tokenizer: Tokenizer) -> str:
    texts = [[one.name, one.offset, one.length] for one in documents]
    content = json.dumps([tokenizer.fingerprint, texts])
    return hashlib.sha256(content.encode()).hexdigest()
