"""Compression: what general-purpose compressors need for the same text."""

import lzma
import zlib
from collections.abc import Iterable
from typing import Final

from titans_eqx.data.errors import DataError

_GZIP_WINDOW_BITS: Final = 31  # the largest window, with a gzip header


def compressed_bits_per_byte(chunks: Iterable[bytes]) -> dict[str, float]:
    """Compress a text with gzip and xz at their usual best levels.

    Streams, so memory does not grow with the text.

    Returns:
        Compressed bits per byte of text, by the name of the command.

    Raises:
        DataError: If there is no text.
    """
    compressors = {
        "gzip -9": zlib.compressobj(level=9, wbits=_GZIP_WINDOW_BITS),
        "xz -9": lzma.LZMACompressor(preset=9),
    }
    compressed = dict.fromkeys(compressors, 0)
    n_bytes = 0
    for chunk in chunks:
        n_bytes += len(chunk)
        for name, compressor in compressors.items():
            compressed[name] += len(compressor.compress(chunk))
    if not n_bytes:
        raise DataError("no text to compress")
    for name, compressor in compressors.items():
        compressed[name] += len(compressor.flush())
    return {name: 8 * size / n_bytes for name, size in compressed.items()}
