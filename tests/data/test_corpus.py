"""A corpus reads as the concatenation of its documents, without loading them."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from titans_eqx.data import (
    ByteTokenizer,
    Corpus,
    DataError,
    FileTokenizer,
    find_documents,
    open_corpora,
)
from titans_eqx.data.corpus import AbstractCorpus
from titans_eqx.data.documents import TextPaths
from titans_eqx.data.stream import MAX_MAPPED_FILES
from titans_eqx.errors import UserError

FILES = {
    "a.txt": b"first text",
    "b.txt": b"x",
    "c.txt": b"the third\nhas lines\n" * 50,
}
LINE = b"def read(path):\n"


def open_bytes(path: TextPaths) -> Corpus:
    return Corpus(find_documents("stdlib", path), ByteTokenizer())


def texts_of(corpus: AbstractCorpus) -> list[bytes]:
    return corpus.read(0, corpus.n_tokens).tobytes().split(b"\0")


@pytest.fixture
def bpe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileTokenizer:
    """Make a small tokenizer without an end token, and a cache folder of its own."""
    tokenizers = pytest.importorskip("tokenizers")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator([LINE.decode()] * 9, trainer)
    trained.save(str(tmp_path / "tokenizer.json"))
    return FileTokenizer(tmp_path / "tokenizer.json")


def test_any_range_equals_that_of_the_concatenation(write_files: Callable) -> None:
    corpus = open_bytes(write_files(FILES))
    whole = np.frombuffer(b"\0".join(FILES.values()), np.uint8)
    assert corpus.n_tokens == len(whole)
    assert corpus.n_bytes == sum(map(len, FILES.values()))
    assert corpus.read(0, corpus.n_tokens).dtype == np.uint8
    ranges = [(start, stop) for start in range(20) for stop in range(start, 20)]
    generator = np.random.default_rng(0)
    ranges += np.sort(generator.integers(0, len(whole) + 1, (200, 2))).tolist()
    for start, stop in ranges:
        np.testing.assert_array_equal(corpus.read(start, stop), whole[start:stop])


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 10**6)])
def test_range_outside_is_refused(write_files: Callable, start: int, stop: int) -> None:
    with pytest.raises(IndexError, match="are not inside a stream of 1013"):
        open_bytes(write_files(FILES)).read(start, stop)


def test_corpus_larger_than_memory_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A sparse file: 1 TiB to read, a few kilobytes on disk.
    path = tmp_path / "huge.txt"
    path.write_bytes(b"a" * 10_000)
    os.truncate(path, 2**40)
    mapped: list[np.memmap] = []
    real_memmap = np.memmap

    def record(*args: object, **options: object) -> np.memmap:
        mapped.append(real_memmap(*args, **options))  # type: ignore[call-overload]
        return mapped[-1]

    monkeypatch.setattr(np, "memmap", record)
    corpus = open_bytes(path)
    assert mapped == []
    assert corpus.n_tokens == 2**40
    assert bytes(corpus.read(9_998, 10_002)) == b"aa\0\0"
    assert bytes(corpus.read(2**40 - 2, 2**40)) == b"\0\0"
    assert [type(one) for one in mapped] == [real_memmap]
    assert mapped[0].size == 2**40


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="counts open files")
def test_open_files_do_not_grow_with_the_corpus(write_files: Callable) -> None:
    folder = write_files({f"{number}.txt": b"ab" for number in range(300)})
    corpus = open_bytes(folder)
    n_open = len(os.listdir("/dev/fd"))
    assert bytes(corpus.read(0, corpus.n_tokens)) == b"\0".join([b"ab"] * 300)
    assert len(os.listdir("/dev/fd")) - n_open <= MAX_MAPPED_FILES


@pytest.mark.parametrize("is_mapped", [True, False])
def test_file_that_shrinks_or_vanishes_is_an_error(
    write_files: Callable, is_mapped: bool
) -> None:
    folder = write_files(FILES)
    corpus = open_bytes(folder)
    if is_mapped:
        corpus.read(0, corpus.n_tokens)
    os.truncate(folder / "c.txt", 10)
    assert bytes(corpus.read(0, 10)) == b"first text"
    with pytest.raises(DataError, match=r"c\.txt has shrunk: 1000 bytes .* 10 are"):
        corpus.read(0, corpus.n_tokens)
    (folder / "c.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read .*c\.txt: No such file"):
        corpus.read(corpus.n_tokens - 1, corpus.n_tokens)


def test_fingerprint_follows_names_sizes_and_tokenizer(
    write_files: Callable, tmp_path: Path, bpe: FileTokenizer
) -> None:
    folder = write_files(FILES)
    original = open_bytes(folder).fingerprint
    moved = folder.rename(tmp_path / "moved")
    assert open_bytes(moved).fingerprint == original
    documents = find_documents("stdlib", moved)
    assert Corpus(documents, bpe).fingerprint != original
    (moved / "b.txt").rename(moved / "bb.txt")
    assert open_bytes(moved).fingerprint != original
    (moved / "bb.txt").rename(moved / "b.txt")
    (moved / "b.txt").write_bytes(b"xx")
    assert open_bytes(moved).fingerprint != original


def test_corpus_of_no_documents_is_an_error() -> None:
    with pytest.raises(DataError, match="the text has no documents"):
        Corpus((), ByteTokenizer())


def test_sides_of_the_split_share_no_document(write_files: Callable) -> None:
    texts = {f"{number}.txt": b"text %d" % number for number in range(50)}
    folder = write_files(texts)
    train, evaluated = open_corpora("stdlib", folder, None, 0.2, ByteTokenizer())
    assert (train.name, evaluated.name) == ("the training text", "the held-out text")
    assert sorted(texts_of(train) + texts_of(evaluated)) == sorted(texts.values())


def test_eval_path_replaces_the_split_and_leaves_training(
    write_files: Callable,
) -> None:
    folder = write_files(FILES)
    train, evaluated = open_corpora(
        "stdlib", folder, folder / "b.txt", 0.5, ByteTokenizer()
    )
    assert texts_of(train) == [FILES["a.txt"], FILES["c.txt"]]
    assert texts_of(evaluated) == [FILES["b.txt"]]
    with pytest.raises(DataError, match="nothing is left to train on"):
        open_corpora("stdlib", folder, folder, 0.5, ByteTokenizer())


def test_stdlib_opens_with_no_path() -> None:
    train, evaluated = open_corpora("stdlib", None, None, 0.05, ByteTokenizer())
    assert train.n_bytes > evaluated.n_bytes > 0


def test_encoded_corpus_equals_encoded_documents(
    write_files: Callable, bpe: FileTokenizer
) -> None:
    folder = write_files({"a.txt": LINE * 3, "b.txt": b"other", "c.txt": LINE})
    corpus = Corpus(find_documents("stdlib", folder), bpe)
    parts = [bpe.encode(text) for text in (LINE * 3, b"other", LINE)]
    expected = [*parts[0], 0, *parts[1], 0, *parts[2]]
    assert corpus.read(0, corpus.n_tokens).tolist() == expected
    assert corpus.read(0, 1).dtype == np.uint16
    assert corpus.n_bytes == len(LINE * 4 + b"other")


@pytest.mark.parametrize("end", [b"\n", "\u7d71".encode()], ids=["lines", "one line"])
def test_long_document_is_encoded_in_blocks_without_loss(
    write_files: Callable,
    bpe: FileTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    end: bytes,
) -> None:
    monkeypatch.setattr("titans_eqx.data.documents.CHUNK_BYTES", 7)
    text = (b"def read(path):" + end) * 20
    folder = write_files({"a.txt": text})
    corpus = Corpus(find_documents("stdlib", folder), bpe)
    assert bpe.decode(corpus.read(0, corpus.n_tokens)).encode() == text


def test_encoding_is_kept_until_a_document_changes(
    write_files: Callable, bpe: FileTokenizer, tmp_path: Path
) -> None:
    folder = write_files({"a.txt": LINE, "b.txt": LINE})
    cache = tmp_path / "cache" / "titans_eqx"
    tokens = Corpus(find_documents("stdlib", folder), bpe).read(0, 5)
    (stored,) = cache.iterdir()
    first_made = stored.stat().st_mtime_ns
    Corpus(find_documents("stdlib", folder), bpe)
    assert stored.stat().st_mtime_ns == first_made
    os.utime(folder / "a.txt", ns=(1, 1))
    Corpus(find_documents("stdlib", folder), bpe)
    assert len(list(cache.iterdir())) == 2

    os.utime(folder / "a.txt", ns=(2, 2))
    stored.write_bytes(b"damaged")
    again = Corpus(find_documents("stdlib", folder / "a.txt"), bpe)
    np.testing.assert_array_equal(again.read(0, 5), tokens)


def test_damaged_token_file_is_made_again(
    write_files: Callable, bpe: FileTokenizer, tmp_path: Path
) -> None:
    documents = find_documents("stdlib", write_files({"a.txt": LINE}))
    tokens = Corpus(documents, bpe).read(0, 3)
    (stored,) = (tmp_path / "cache" / "titans_eqx").iterdir()
    for damaged in (b"", b"short", stored.read_bytes()[:-3]):
        stored.write_bytes(damaged)
        np.testing.assert_array_equal(Corpus(documents, bpe).read(0, 3), tokens)


def test_failed_encoding_leaves_no_file(
    write_files: Callable,
    bpe: FileTokenizer,
    tmp_path: Path,
) -> None:
    folder = write_files({"a.txt": LINE, "b.txt": LINE})
    documents = find_documents("stdlib", folder)
    (folder / "b.txt").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.txt has shrunk"):
        Corpus(documents, bpe)
    assert list((tmp_path / "cache" / "titans_eqx").iterdir()) == []


@pytest.mark.parametrize("caches", ["tokenizer.json", "~nosuch/caches"])
def test_unusable_cache_folder_is_an_error(
    write_files: Callable,
    bpe: FileTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caches: str,
) -> None:
    documents = find_documents("stdlib", write_files({"a.txt": LINE}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", caches)
    with pytest.raises(UserError, match="set XDG_CACHE_HOME to a folder that can be"):
        Corpus(documents, bpe)
