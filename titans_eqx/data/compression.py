"""Compression: what general-purpose compressors need for the same text."""

import bz2
import importlib.util
import lzma
import zlib
from collections.abc import Iterable
from typing import Any, Final

from titans_eqx.data.errors import DataError

_PPMD_ORDER: Final = 32  # longest context, in bytes
_PPMD_BYTES: Final = 192 * 2**20
_GZIP_WINDOW_BITS: Final = 31  # the largest window, with a gzip header


def compressed_bits_per_byte(chunks: Iterable[bytes]) -> dict[str, float]:
    """Compress a text with gzip, bzip2 and xz at their usual best levels.

    Streams, so memory does not grow with the text. Where the package pyppmd is
    installed, PPMd is there too: the best of them on text, by far.

    Returns:
        Compressed bits per byte of text, by the name of the command.

    Raises:
        DataError: If there is no text.
    """
    compressors: dict[str, Any] = {
        "gzip -9": zlib.compressobj(level=9, wbits=_GZIP_WINDOW_BITS),
        "bzip2 -9": bz2.BZ2Compressor(9),
        "xz -9": lzma.LZMACompressor(preset=9),
    }
    if importlib.util.find_spec("pyppmd") is not None:
        compressors["ppmd"] = _Ppmd()
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


class _Ppmd:
    """PPMd, variant H, as 7-Zip sets it on its highest levels."""

    def __init__(self) -> None:
        import pyppmd  # pyright: ignore[reportMissingImports]

        self._encoder = pyppmd.Ppmd7Encoder(_PPMD_ORDER, _PPMD_BYTES)

    def compress(self, chunk: bytes) -> bytes:
        return self._encoder.encode(chunk)

    def flush(self) -> bytes:
        return self._encoder.flush()
