"""Training a byte-level BPE tokenizer on documents (extra `text`)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from titans_eqx.config.bounds import MAX_VOCAB_SIZE
from titans_eqx.data.documents import Document
from titans_eqx.data.errors import DataError

MIN_VOCAB_SIZE: Final = 257  # the bytes and the separator
SEPARATOR: Final = "<|endoftext|>"


def train_bpe(
    documents: Sequence[Document],
    vocab_size: int,
    advance: Callable[[int], object] = lambda n_bytes: None,
) -> bytes:
    """Train a byte-level BPE tokenizer; the documents are read one block at a time.

    What is no UTF-8 teaches it nothing, but is encoded like all else, byte by byte.

    Args:
        documents: What it is trained on.
        vocab_size: The most tokens it may have; fewer if the text has no more pairs.
        advance: Called with the number of bytes read since the last call.

    Returns:
        The content of a tokenizer.json.

    Raises:
        DataError: If the vocabulary is too small or too large, a document cannot be
            read, or the package `tokenizers` is not installed.
    """
    if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
        raise DataError(
            f"--vocab-size must be from {MIN_VOCAB_SIZE}, a token for each byte and "
            f"the separator, to {MAX_VOCAB_SIZE:,}, got {vocab_size}"
        )
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise DataError(
            "training a tokenizer needs the package 'tokenizers': "
            "pip install 'titans_eqx[text]'"
        ) from error
    tokenizer = Tokenizer(models.BPE())
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[SEPARATOR],
        show_progress=False,
    )

    def texts() -> Iterator[str]:
        for document in documents:
            for block in document.blocks():
                yield block.decode("utf-8", errors="ignore")
                advance(len(block))

    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer.to_str().encode()
