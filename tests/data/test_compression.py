"""The comparison numbers are those of the compressors themselves."""

import bz2
import gzip
import lzma

import pytest

from titans_eqx.data import DataError, compressed_bits_per_byte


def test_streamed_sizes_equal_those_of_the_whole() -> None:
    chunks = [f"line {number} of the text\n".encode() for number in range(3000)]
    text = b"".join(chunks)
    result = compressed_bits_per_byte(iter(chunks))
    ppmd = result.pop("ppmd", None)
    assert result == {
        "gzip -9": 8 * len(gzip.compress(text, 9)) / len(text),
        "bzip2 -9": 8 * len(bz2.compress(text, 9)) / len(text),
        "xz -9": 8 * len(lzma.compress(text, preset=9)) / len(text),
    }
    assert 0 < result["xz -9"] < result["gzip -9"] < 2
    assert ppmd is None or 0 < ppmd < 2


@pytest.mark.parametrize("chunks", [[], [b"", b""]])
def test_no_text_is_an_error(chunks: list[bytes]) -> None:
    with pytest.raises(DataError, match="no text to compress"):
        compressed_bits_per_byte(chunks)
