"""Split: which documents are held out.

A document is held out by the hash of its own name, so its side does not depend on
the order or the number of the other documents. Only when that leaves one side
empty, as it may with few documents, does the choice look at all of them.
"""

import hashlib
from typing import Final

from titans_eqx.data.documents import (
    Document,
    TextPaths,
    continuation_len,
    find_documents,
)
from titans_eqx.data.errors import DataError

_MAX_CHARACTER_BYTES: Final = 4

Documents = tuple[Document, ...]


def find_texts(
    source: str,
    path: TextPaths | None,
    eval_path: TextPaths | None,
    eval_fraction: float,
) -> tuple[Documents, Documents]:
    """Find the training and the held-out documents that a config names.

    Args:
        source: "stdlib"; looked at only when `path` is None.
        path: File, folder, glob, or a list of these.
        eval_path: The held-out text in the same forms. Files that `path` names
            too are taken out of training. None: split off by document.
        eval_fraction: Share of the documents to hold out when `eval_path` is None.

    Raises:
        DataError: If either side has no usable text.
    """
    documents = find_documents(source, path)
    if eval_path is None:
        return split_documents(documents, eval_fraction)
    held_out = find_documents(source, eval_path)
    taken = {one.path.resolve() for one in held_out}
    train = tuple(one for one in documents if one.path.resolve() not in taken)
    if not train:
        raise DataError(
            "data.eval_path holds out every document; nothing is left to train on"
        )
    return train, held_out


def split_documents(
    documents: Documents, eval_fraction: float
) -> tuple[Documents, Documents]:
    """Split documents into training and held-out ones, both sides non-empty.

    A single document is cut in two: its end is held out.

    Args:
        documents: At least one.
        eval_fraction: Share of the documents (of the bytes, for a single one)
            to hold out, expected value, in (0, 1).

    Returns:
        Training documents and held-out documents, each in the given order.

    Raises:
        DataError: If there is nothing to split.
    """
    if not 0 < eval_fraction < 1:
        raise DataError(
            f"data.eval_fraction must be between 0 and 1, got {eval_fraction}"
        )
    if not documents:
        raise DataError("no documents to split")
    if len(documents) == 1:
        return _cut(documents[0], eval_fraction)
    eval_documents = {one for one in documents if _position(one)[0] < eval_fraction}
    if not eval_documents:
        eval_documents = {min(documents, key=_position)}
    elif len(eval_documents) == len(documents):
        eval_documents.remove(max(documents, key=_position))
    return (
        tuple(one for one in documents if one not in eval_documents),
        tuple(one for one in documents if one in eval_documents),
    )


def _position(document: Document) -> tuple[float, str]:
    """Place a document in [0, 1) by its name; the path only breaks ties."""
    name = document.name.encode("utf-8", errors="surrogateescape")
    digest = hashlib.sha256(name).digest()
    return int.from_bytes(digest[:6], "big") / 2**48, str(document.path)


def _cut(document: Document, eval_fraction: float) -> tuple[Documents, Documents]:
    n_eval = max(1, round(document.length * eval_fraction))
    n_train = _character_start(document, document.length - n_eval)
    n_eval = document.length - n_train
    if n_train < 1 or n_eval < 1:
        raise DataError(
            f"{document.path} is too short to split ({document.length} bytes); "
            "give more text in data.path, or data.eval_path"
        )
    name, path, offset = document.name, document.path, document.offset
    return (
        (Document(name=name, path=path, offset=offset, length=n_train),),
        (Document(name=name, path=path, offset=offset + n_train, length=n_eval),),
    )


def _character_start(document: Document, cut: int) -> int:
    """Move a cut forward to the next start of a UTF-8 character."""
    following = document.peek(cut, _MAX_CHARACTER_BYTES)
    return min(cut + continuation_len(following), document.length)
