"""Which text goes into which shard, whoever encodes it."""

from collections.abc import Sequence
from typing import Final

from titans_eqx.data.documents import Document, continuation_len
from titans_eqx.data.shard import Piece

MAX_LINE_BYTES: Final = 2**16  # that are looked through for the end of a line


def plan_shards(
    documents: Sequence[Document], shard_bytes: int
) -> list[tuple[Piece, ...]]:
    """Which text goes into which shard.

    Args:
        documents: In order.
        shard_bytes: A shard is full once it has so many bytes of text. A document that
            is longer is cut, after a line.

    Raises:
        DataError: If a document cannot be read.
    """
    shards: list[list[Piece]] = []
    room = 0
    for index, document in enumerate(documents):
        start = 0
        while start < document.length:
            if room <= 0:
                shards.append([])
                room = shard_bytes
            stop = document.length
            if stop > shard_bytes and start + room < stop:
                stop = _line_end(document, start + room)
            text = Document(
                name=document.name,
                path=document.path,
                offset=document.offset + start,
                length=stop - start,
            )
            is_end = stop == document.length
            piece = Piece(
                text=text,
                is_start=start == 0,
                is_separated=is_end and index < len(documents) - 1,
            )
            shards[-1].append(piece)
            room -= text.length
            start = stop
    return [tuple(pieces) for pieces in shards]


def _line_end(document: Document, position: int) -> int:
    """Where the line ends that a position is in; where the character does, if long."""
    following = document.peek(position, MAX_LINE_BYTES)
    to_line = following.find(b"\n") + 1 or continuation_len(following)
    return min(position + to_line, document.length)
