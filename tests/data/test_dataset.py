"""What a config names is opened, checked against the model and described."""

import re

import numpy as np
import pytest

from titans_eqx.config import (
    ConfigError,
    DataConfig,
    FuzzyRecallConfig,
    MemorizationConfig,
    ModelConfig,
    MqarConfig,
    NeedleConfig,
    RunConfig,
    TrainConfig,
    WhoIsWhereConfig,
)
from titans_eqx.data import DataError, TaskData, TextData, open_dataset


def config_of(data: DataConfig, vocab_size: int = 256) -> RunConfig:
    return RunConfig(
        model=ModelConfig(vocab_size=vocab_size),
        data=data,
        train=TrainConfig(batch_size=4),
    )


def test_a_text_is_windows_of_all_lengths_in_turns(write_files):
    folder = write_files({f"{i}.txt": b"some text " * 20 for i in range(9)})
    config = config_of(
        DataConfig(path=str(folder), seq_len=8, lengths=(4, 8), eval_fraction=0.3)
    )
    data = open_dataset(config)
    assert isinstance(data, TextData)
    shapes = [batch["inputs"].shape for batch in data.batches.iterate(0, 3)]
    assert shapes == [(4, 4), (4, 8), (4, 4)]
    assert data.eval_examples[0]["targets"].shape == (8,)
    assert data.fingerprints.keys() == {"tokenizer", "train", "eval"}
    n_bytes = data.train_corpus.n_bytes, data.eval_corpus.n_bytes
    assert sum(n_bytes) == 1800
    assert data.describe() == (
        f"text        {n_bytes[0]:,} bytes to train on, {n_bytes[1]:,} held out"
    )


@pytest.mark.parametrize(("max_documents", "is_wasteful"), [(2, True), (8, False)])
def test_rows_that_are_mostly_padding_are_warned_of(
    write_files, caplog, max_documents, is_wasteful
):
    folder = write_files({f"{i}.txt": b"short" for i in range(60)})
    config = config_of(
        DataConfig(
            path=str(folder),
            seq_len=24,
            eval_fraction=0.3,
            packing="documents",
            max_documents=max_documents,
        )
    )
    data = open_dataset(config)
    for example in (data.batches[0], data.eval_examples[0]):
        assert example["document_starts"].shape[-1] == max_documents - 1
    message = "data.max_documents = 2 leaves 50 % of the rows of 24 tokens empty: "
    assert (message in caplog.text) == is_wasteful


def test_shorter_sequences_of_a_task_have_fewer_pairs():
    task = MqarConfig(n_pairs=8, eval_examples=5)
    data = open_dataset(
        config_of(DataConfig(source="task", seq_len=64, lengths=(8, 32), task=task))
    )
    assert isinstance(data, TaskData)
    n_scored = [batch["mask"].sum(1).tolist() for batch in data.batches.iterate(0, 2)]
    assert n_scored == [[1] * 4, [4] * 4]
    assert len(data.eval_examples) == 5
    assert data.eval_examples[0]["mask"].sum() == 8
    described = (
        "MultiQueryRecall(vocab_size=128, n_pairs=8, power=1.0, filler='random')"
    )
    assert data.fingerprints == {"task": described}
    assert data.describe() == f"task        {described}"


def test_the_text_of_a_task_is_part_of_its_fingerprint(write_files):
    names = ("a", "copy of a", "b")
    folder = write_files(dict(zip(names, (b"One. ", b"One. ", b"Two. "), strict=True)))
    a, copy, b = (str(folder / name) for name in names)

    def fingerprint(kind, *haystacks):
        task = kind(**dict(zip(("haystack", "eval_haystack"), haystacks, strict=False)))
        data = DataConfig(source="task", seq_len=2048, task=task)
        return open_dataset(config_of(data)).fingerprints["task"]

    for kind in (NeedleConfig, WhoIsWhereConfig):
        assert fingerprint(kind, a) == fingerprint(kind, copy)
        assert len({fingerprint(kind, *one) for one in ((), (a,), (b,))}) == 3
    evaluated_on = [fingerprint(NeedleConfig, a, one) for one in (a, b, copy)]
    assert evaluated_on[0] == evaluated_on[2] == fingerprint(NeedleConfig, a)
    assert evaluated_on[1] not in (evaluated_on[0], fingerprint(NeedleConfig, b))
    # As checkpoints have it that were saved when a text was not in it.
    shown = "Needle(needle='passkey', n_digits=7, depth=-1.0)"
    assert fingerprint(NeedleConfig) == shown


def test_each_turn_can_have_a_number_of_pairs_of_its_own():
    task = MqarConfig(n_pairs=8, pairs_in_turn=(4, 16, 8))
    data = DataConfig(source="task", seq_len=64, lengths=(32, 64, 64), task=task)
    batches = open_dataset(config_of(data)).batches.iterate(0, 3)
    shapes = [(one["mask"].shape[1], int(one["mask"][0].sum())) for one in batches]
    assert shapes == [(32, 4), (64, 16), (64, 8)]


def test_training_may_ask_for_every_token_and_evaluation_asks_for_long_keys():
    task = FuzzyRecallConfig(vocab_size=16, train_on="tokens")
    data = open_dataset(config_of(DataConfig(source="task", seq_len=60, task=task)))
    batch = data.batches[0]
    inputs, targets, mask = (batch[name] for name in ("inputs", "targets", "mask"))
    assert mask[:, :-1].all()
    assert not mask[:, -1].any()
    np.testing.assert_array_equal(targets[:, :-1], inputs[:, 1:])

    def key_lens(rows):
        kinds = "/".join("".join("k" if t < 7 else " " for t in row) for row in rows)
        return set(map(len, re.findall("k+", kinds)))

    assert key_lens(inputs) == {1, 2, 3}
    examples = [data.eval_examples[i] for i in range(10)]
    assert key_lens([one["inputs"] for one in examples]) == {3}
    assert all(0 < one["mask"].sum() < 30 for one in examples)


def test_a_length_named_twice_reads_two_orders_of_the_same_examples():
    task = MemorizationConfig(train_examples=4)
    data = open_dataset(
        config_of(DataConfig(source="task", seq_len=16, lengths=(16, 16), task=task))
    )
    first, second = (data.batches[step]["inputs"] for step in range(2))
    assert np.any(first != second)
    assert sorted(first.tolist()) == sorted(second.tolist())


WRONG = {
    "vocabulary of a task": (
        config_of(DataConfig(source="task", task=NeedleConfig()), vocab_size=100),
        ConfigError,
        "model.vocab_size = 100: the task needle has 256 tokens; set model.vocab_size",
    ),
    "length": (
        config_of(DataConfig(source="task", seq_len=100)),
        DataError,
        r"data.seq_len \(and data.lengths; --length of an evaluation\) must be at "
        "least 128 for MultiQueryRecall",
    ),
    "shards of no user": (
        config_of(DataConfig(source="shards", path="~nosuch/x")),
        DataError,
        "~nosuch/x is no folder of shards: it has no manifest.json",
    ),
    "tokenizer of no user": (
        config_of(DataConfig(tokenizer="~nosuch/t.json")),
        DataError,
        "no tokenizer file at ~nosuch/t.json; data.tokenizer is 'bytes' or the path",
    ),
    "few examples": (
        config_of(DataConfig(source="task", task=MqarConfig(train_examples=3))),
        DataError,
        "3 training examples are fewer than one batch of 4",
    ),
}


@pytest.mark.parametrize(("config", "kind", "said"), WRONG.values(), ids=WRONG)
def test_data_that_does_not_fit_is_refused(config, kind, said):
    with pytest.raises(kind, match=said):
        open_dataset(config)
