"""Tokenizers give back the text and say clearly why they cannot be used."""

import sys
from pathlib import Path

import numpy as np
import pytest

from titans_eqx.data import (
    ByteTokenizer,
    DataError,
    FileTokenizer,
    Tokenizer,
    load_tokenizer,
)
from titans_eqx.data.tokenizer import token_dtype, token_lengths

TEXT = "def read(path):\n    return 'naïve 統計'\n"


@pytest.fixture
def tokenizer_path(tmp_path: Path) -> Path:
    """Train a small byte-level BPE with settings a loader has to switch off."""
    tokenizers = pytest.importorskip("tokenizers")
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator([TEXT] * 20, trainer)
    trained.enable_truncation(max_length=4)
    trained.enable_padding(length=64)
    path = tmp_path / "tokenizer.json"
    trained.save(str(path))
    return path


def test_bytes_are_their_own_ids() -> None:
    tokenizer = load_tokenizer("bytes")
    ids = tokenizer.encode(TEXT.encode())
    assert isinstance(tokenizer, Tokenizer)
    assert ids.dtype == np.uint8
    assert ids.tolist() == list(TEXT.encode())
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.vocab_size == 256


def test_what_is_no_text_decodes_to_replacement_characters() -> None:
    assert (
        ByteTokenizer().decode([97, 0xC3, 98, 256, -1, 99]) == "a\ufffdb\ufffd\ufffdc"
    )
    assert ByteTokenizer().decode([]) == ""


def test_file_tokenizer_round_trip(tokenizer_path: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_path))
    ids = tokenizer.encode(TEXT.encode())
    assert isinstance(tokenizer, Tokenizer)
    assert ids.dtype == np.uint16
    assert 4 < len(ids) < len(TEXT.encode())
    assert ids.max() < tokenizer.vocab_size <= 300
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.separator == 1


def test_lengths_of_tokens_are_the_bytes_of_the_text(tokenizer_path: Path) -> None:
    for tokenizer in (ByteTokenizer(), FileTokenizer(tokenizer_path)):
        lengths = token_lengths(tokenizer)
        text = TEXT.encode()
        assert lengths.shape == (tokenizer.vocab_size,)
        assert lengths[tokenizer.encode(text)].sum() == len(text)
        assert lengths[tokenizer.separator] == 0


@pytest.mark.parametrize("kind", ["sentencepiece", "wordpiece"])
def test_lengths_of_tokens_that_are_not_byte_level(tmp_path: Path, kind: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    decoders, pre_tokenizers = tokenizers.decoders, tokenizers.pre_tokenizers
    special = ["[UNK]", "</s>"]
    if kind == "sentencepiece":  # with bytes for what is not in the vocabulary
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
        made = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=True))
        made.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
        made.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=330, special_tokens=[*special, *alphabet], show_progress=False
        )
    else:
        made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        made.decoder = decoders.WordPiece(cleanup=False)
        trainer = tokenizers.trainers.WordPieceTrainer(
            vocab_size=60, special_tokens=special, show_progress=False
        )
    made.train_from_iterator(["the cat and the other cats sat there"] * 20, trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = FileTokenizer(tmp_path / "tokenizer.json")
    assert not tokenizer.is_byte_level
    text = "the cats and the rats" + (" 統計" if kind == "sentencepiece" else "")
    ids = tokenizer.encode(text.encode())
    assert len(ids) < len(text.encode())
    # The space that belongs to the first token is none of the text.
    n_bytes = len(tokenizer.decode_bytes(ids)) + 1
    assert token_lengths(tokenizer)[ids].sum() == n_bytes


def test_file_tokenizer_reads_broken_utf8_with_replacement(
    tokenizer_path: Path,
) -> None:
    tokenizer = FileTokenizer(tokenizer_path)
    assert tokenizer.decode(tokenizer.encode(b"a\xffb")) == "a\ufffdb"


def test_fingerprint_follows_the_content(tokenizer_path: Path) -> None:
    first = FileTokenizer(tokenizer_path)
    moved = tokenizer_path.rename(tokenizer_path.with_name("moved.json"))
    assert FileTokenizer(moved).fingerprint == first.fingerprint
    moved.write_bytes(moved.read_bytes() + b"\n")
    assert FileTokenizer(moved).fingerprint != first.fingerprint
    assert first.fingerprint != ByteTokenizer().fingerprint


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.int32)],
)
def test_ids_take_the_smallest_dtype(vocab_size: int, dtype: type) -> None:
    assert token_dtype(vocab_size) == dtype


def test_missing_tokenizer_file_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tokenizer file at .*'bytes' or the path"):
        load_tokenizer(str(tmp_path / "none.json"))


def test_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(DataError, match="is not a tokenizer.json"):
        load_tokenizer(str(path))


def test_oversized_tokenizer_file_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}  ")
    monkeypatch.setattr("titans_eqx.data.tokenizer.MAX_TOKENIZER_BYTES", 3)
    with pytest.raises(DataError, match="has more than 3 bytes, the most that is"):
        load_tokenizer(str(path))


def test_missing_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"pip install 'titans_eqx\[text\]'"):
        load_tokenizer(str(path))
