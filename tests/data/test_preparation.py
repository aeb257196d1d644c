"""Texts become shards once, and a run that was cut off goes on."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import accept_or_refuse, as_json, changed, damaged, few
from tests.refusal import assert_refused
from titans_eqx.checkpoint.metadata import check_resumable, metadata
from titans_eqx.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from titans_eqx.data import (
    Corpus,
    DataError,
    FileTokenizer,
    PrepareSettings,
    open_dataset,
    open_shards,
    prepare,
)
from titans_eqx.data.shard import write_shard
from titans_eqx.data.split import find_texts

pytest.importorskip("tokenizers")
NOISE = np.random.default_rng(0).integers(0, 256, 3000, np.uint8).tobytes()
FILES = {
    "noise": b"x" * 10 + NOISE.replace(b"\0", b"\xff"),
    **{
        f"{i}.txt": f"def f{i}(x):\n    return x + {i}\n".encode() * 9 for i in range(9)
    },
}
SETTINGS = {"eval_fraction": 0.3, "vocab_size": 300, "shard_bytes": 700}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def settings(texts):
    return PrepareSettings(path=str(texts), **SETTINGS)


@pytest.fixture(scope="module")
def shards(settings, tmp_path_factory):
    """A finished folder; leave it alone."""
    folder = tmp_path_factory.mktemp("shards") / "new"
    prepare(folder, settings)
    return folder


def content_of(folder):
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def test_shards_hold_the_tokens_of_every_document_and_any_byte(texts, shards):
    tokenizer = FileTokenizer(shards / "tokenizer.json")
    for corpus, documents in zip(
        open_shards(shards), find_texts("stdlib", str(texts), None, 0.3), strict=True
    ):
        starts = corpus.document_starts
        assert starts.dtype == np.int64
        assert starts[-1] == corpus.n_tokens
        assert len(starts) == len(documents) + 1
        assert corpus.n_bytes == sum(one.length for one in documents)
        for i, one in enumerate(documents):
            is_last = i == len(documents) - 1
            tokens = corpus.read(int(starts[i]), int(starts[i + 1]) - (not is_last))
            assert tokenizer.decode_bytes(tokens) == FILES[one.name]
            if not is_last:
                (separator,) = corpus.read(int(starts[i + 1]) - 1, int(starts[i + 1]))
                assert separator == tokenizer.separator
    assert len(list(shards.glob("train-*.tokens"))) > 2


def test_a_text_corpus_has_the_same_documents(
    texts, shards, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    documents, _ = find_texts("stdlib", str(texts), None, 0.3)
    documents = tuple(one for one in documents if one.name != "noise")
    by_tokens = Corpus(documents, FileTokenizer(shards / "tokenizer.json"))
    starts = by_tokens.document_starts
    assert len(starts) == len(documents) + 1
    ends = [*(starts[1:-1] - 1), by_tokens.n_tokens]
    lengths = [
        len(FileTokenizer(shards / "tokenizer.json").encode(FILES[one.name]))
        for one in documents
    ]
    assert (np.array(ends) - starts[:-1]).tolist() == lengths


@pytest.mark.slow
def test_processes_write_the_same_bytes(settings, shards, tmp_path):
    prepare(tmp_path / "s", dataclasses.replace(settings, n_processes=2))
    assert content_of(tmp_path / "s") == content_of(shards)


def test_what_was_cut_off_goes_on_and_keeps_what_is_whole(
    settings, shards, tmp_path, monkeypatch
):
    folder, written, write = tmp_path / "s", [], write_shard

    def cut_off(path, *arguments, **options):
        if len(written) == 2:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        return write(path, *arguments, **options)

    monkeypatch.setattr("titans_eqx.data.encoding.write_shard", cut_off)
    with pytest.raises(OSError, match="No space left"):
        prepare(folder, settings)
    assert_refused(open_shards, folder, message="are not complete: run the same")
    written[1].write_bytes(written[1].read_bytes()[:-1] + b"\7")  # as a bad disk
    (folder / ".partial-abc").write_bytes(b"of a process that was killed")
    kept = written[0].stat().st_mtime_ns
    monkeypatch.undo()
    prepare(folder, settings)
    assert written[0].stat().st_mtime_ns == kept
    assert content_of(folder) == content_of(shards)


def test_what_is_there_is_never_replaced_by_something_else(
    texts, settings, shards, tmp_path
):
    before = content_of(shards)
    other = PrepareSettings(path=str(texts), **SETTINGS | {"vocab_size": 301})
    assert_refused(prepare, shards, other, message="holds shards of other texts, anot")
    (tmp_path / "notes").touch()
    (tmp_path / ".partial-mine").touch()
    assert_refused(prepare, tmp_path, settings, message="is not empty, and holds no")
    assert content_of(tmp_path).keys() == {"notes", ".partial-mine"}
    (tmp_path / "notes").rename(tmp_path / "tokenizer.json")
    for one in (settings, dataclasses.replace(settings, tokenizer="bytes")):
        assert_refused(prepare, tmp_path, one, message="is another tokenizer")
    assert content_of(tmp_path) == {"tokenizer.json": b""}
    assert content_of(shards) == before


def test_shards_are_not_written_among_the_texts(texts, tmp_path):
    (tmp_path / "link").symlink_to(texts)
    (tmp_path / "a.txt").write_text("a text")
    either = (str(tmp_path / "a.txt"), str(tmp_path / "link"))
    for out in (texts, texts / "new" / "shards", tmp_path / "link" / "shards"):
        settings = PrepareSettings(path=either, tokenizer="bytes")
        message = f"lies in --path {tmp_path / 'link'}, so that what is written"
        assert_refused(prepare, out, settings, message=message)
        settings = PrepareSettings(path=either[0], eval_path=texts, tokenizer="bytes")
        message = f"lies in --eval-path {texts}, so that"
        assert_refused(prepare, out, settings, message=message)
    assert content_of(texts) == FILES


def test_a_tokenizer_that_is_there_is_taken_and_bytes_need_none(
    texts, shards, tmp_path
):
    given = str(shards / "tokenizer.json")
    small = SETTINGS | {"shard_bytes": 700}
    prepare(tmp_path / "a", PrepareSettings(path=str(texts), tokenizer=given, **small))
    names = {name for name in content_of(shards) if name.endswith("tokens")}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (shards / name).read_bytes()
    prepare(
        tmp_path / "b", PrepareSettings(path=str(texts), tokenizer="bytes", **small)
    )
    assert not (tmp_path / "b" / "tokenizer.json").exists()
    train, _ = open_shards(tmp_path / "b")
    documents, _ = find_texts("stdlib", str(texts), None, 0.3)
    whole = b"\0".join(FILES[one.name] for one in documents)
    assert train.read(0, train.n_tokens).tobytes() == whole


def run_on(source, path, **changes):
    data = {"seq_len": 8, "eval_fraction": 0.3, **changes}
    return RunConfig(
        data=DataConfig(source=source, path=str(path), **data),
        model=ModelConfig(vocab_size=300),
        train=TrainConfig(batch_size=2),
    )


def test_a_run_on_shards_reads_what_a_run_on_the_texts_reads(texts, tmp_path):
    settings = PrepareSettings(path=str(texts), tokenizer="bytes", **SETTINGS)
    prepare(tmp_path / "s", settings)
    on_texts = open_dataset(run_on("stdlib", texts))
    on_shards = open_dataset(run_on("shards", tmp_path / "s"))
    for step in (0, 5):
        for name, array in on_texts.batches[step].items():
            np.testing.assert_array_equal(on_shards.batches[step][name], array)
    assert on_shards.describe() == on_texts.describe()
    assert len(on_shards.eval_examples) == len(on_texts.eval_examples)


def test_training_on_shards_needs_no_tokenizer_and_refuses_anothers(
    shards, texts, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    data = open_dataset(run_on("shards", shards))
    assert data.tokenizer is None
    assert "no samples" in data.describe()
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(shards))
    for name in ("bytes", "~/tokenizer.json"):
        data = open_dataset(run_on("shards", shards, tokenizer=name))
        assert isinstance(data.tokenizer, FileTokenizer)
    small = run_on("shards", shards)
    small = small.model_copy(update={"model": ModelConfig(vocab_size=256)})
    assert_refused(open_dataset, small, message="model.vocab_size = 256: the tokenizer")

    other = tmp_path / "other"
    prepare(other, PrepareSettings(path=str(texts), **SETTINGS | {"vocab_size": 290}))
    moved = run_on("shards", other)
    saved = metadata(run_on("shards", shards), data.fingerprints)
    message = f"was trained with: data.path was {shards}, is {other}. Change it back"
    now = open_dataset(moved).fingerprints
    assert_refused(check_resumable, moved, now, saved, message=message)
    (other / "tokenizer.json").write_bytes((shards / "tokenizer.json").read_bytes())
    message = "is not the one that the tokens were made with (SHA-256)"
    assert_refused(open_dataset, moved, message=message)
    assert_refused(open_dataset, run_on("shards", texts), message="no folder of shards")


@few
@given(data=st.data())
def test_any_folder_is_shards_or_refused_in_one_line(shards, emptied, data):
    folder = emptied()
    name = data.draw(st.sampled_from(["manifest.json", "train-00000.tokens"]))
    for path in shards.iterdir():
        os.link(path, folder / path.name)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if name == "manifest.json":
        content = as_json(data.draw(changed(json.loads(content))))
    else:
        content = data.draw(damaged(content[:1100])) + content[1100:]
    (folder / name).write_bytes(content)

    def read():
        for corpus in open_shards(folder):
            corpus.read(0, corpus.n_tokens)
            assert len(corpus.document_starts) > 0

    accept_or_refuse(read, refusal=DataError)
