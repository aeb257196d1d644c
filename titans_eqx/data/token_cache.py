"""Token cache: documents encoded once into a shard in the user's cache folder.

Delete the folder at any time; it is made again.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from titans_eqx.data.documents import Document
from titans_eqx.data.errors import DataError
from titans_eqx.data.shard import (
    Shard,
    content_fingerprint,
    one_piece_each,
    open_shard,
    write_shard,
)
from titans_eqx.data.tokenizer import Tokenizer
from titans_eqx.files import cache_folder

_logger = logging.getLogger(__name__)


def cached_tokens(documents: Sequence[Document], tokenizer: Tokenizer) -> Shard:
    """Encode documents, or find the file in which that was done before.

    Raises:
        DataError: If a document cannot be read or the cache cannot be written.
        UserError: If there is no home folder to keep it in.
    """
    pieces = one_piece_each(documents)
    key = content_fingerprint(pieces, tokenizer.fingerprint)
    path = cache_folder() / f"{key}.tokens"
    try:
        shard = _stored(path)
        if shard is None:
            _logger.info("encoding %d documents into %s", len(documents), path)
            path.parent.mkdir(parents=True, exist_ok=True)
            shard = write_shard(path, pieces, tokenizer, key)
    except OSError as error:
        raise DataError(
            f"cannot keep tokens in {path.parent}: {error.strerror}; "
            "set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    return shard


def _stored(path: Path) -> Shard | None:
    """The shard of a file, None if it is not there or damaged."""
    try:
        return open_shard(path)
    except DataError:
        return None
