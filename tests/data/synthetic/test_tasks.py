"""Every answer key is recomputed here from the tokens alone."""

from typing import get_args

import numpy as np
import pytest

from tests.data.synthetic.answers import (
    MEMORIZATION,
    MQAR,
    UNSCORED,
    answer_compression,
    answer_fuzzy,
    answer_memorization,
    answer_mqar,
    answer_needle,
    answer_parity,
    answer_recall,
    answer_selective_copying,
    answer_spelled_word_problem,
    answer_who_is_where,
    answer_word_problem,
)
from titans_eqx.config import (
    AnyTask,
    CompressionConfig,
    FuzzyRecallConfig,
    InContextRecallConfig,
    MemorizationConfig,
    MqarConfig,
    NeedleConfig,
    NoisyRecallConfig,
    ParityConfig,
    SelectiveCopyingConfig,
    WhoIsWhereConfig,
    WordProblemConfig,
)
from titans_eqx.data import DataError, Task, TaskExamples, build_task
from titans_eqx.data.synthetic import Needle, WhoIsWhere
from titans_eqx.data.synthetic.mqar import distances

PROSE = b"It was late. Nobody had seen the lamp go out, nor heard the door. " * 3
RANDOM_MQAR = build_task(MqarConfig(vocab_size=32, n_pairs=7))
SMALL = {"vocab_size": 16, "n_pairs": 4}
COPYING = {"vocab_size": 16, "n_copied": 9}
NEEDLE = {"needle": "number", "depth": -1.0, "n_digits": 4}
TASKS = {
    "mqar": (MQAR, 64, answer_mqar),
    "mqar soon": (
        build_task(MqarConfig(vocab_size=32, n_pairs=7, power=0.01, filler="constant")),
        64,
        answer_mqar,
    ),
    "recall": (build_task(InContextRecallConfig(**SMALL)), 40, answer_recall),
    "noisy recall": (
        build_task(
            NoisyRecallConfig(vocab_size=24, noise_vocab_size=8, n_pairs=4, noise=0.4)
        ),
        40,
        answer_recall,
    ),
    "fuzzy recall": (build_task(FuzzyRecallConfig(vocab_size=16)), 60, answer_fuzzy),
    "selective copying": (
        build_task(SelectiveCopyingConfig(**COPYING)),
        40,
        answer_selective_copying,
    ),
    "compression": (build_task(CompressionConfig(**COPYING)), 40, answer_compression),
    "parity": (build_task(ParityConfig()), 40, answer_parity),
    "word problem": (
        build_task(WordProblemConfig(n_points=4)),
        40,
        answer_word_problem,
    ),
    "word problem of swaps": (
        build_task(WordProblemConfig(n_points=4, n_moved=2)),
        40,
        answer_word_problem,
    ),
    "spelled word problem": (  # of which the last is cut off
        build_task(WordProblemConfig(n_points=4, tokens_each=2)),
        41,
        answer_spelled_word_problem,
    ),
    "memorization": (MEMORIZATION, 20, answer_memorization),
    "passkey": (build_task(NeedleConfig()), 400, answer_needle),
    "number in prose": (Needle(**NEEDLE, hay=PROSE), 300, answer_needle),
    "code in prose": (
        Needle(**NEEDLE | {"needle": "word"}, hay=PROSE),
        400,
        answer_needle,
    ),
    "uuid in prose": (
        Needle(**NEEDLE | {"needle": "uuid"}, hay=PROSE),
        400,
        answer_needle,
    ),
    "who is where": (build_task(WhoIsWhereConfig(n_pairs=6)), 400, answer_who_is_where),
    "who is where in prose": (
        WhoIsWhere(n_pairs=2, hay=PROSE),
        300,
        answer_who_is_where,
    ),
}
every_task = pytest.mark.parametrize(
    ("task", "seq_len", "answer"), TASKS.values(), ids=TASKS.keys()
)


@every_task
def test_targets_are_the_answers_that_the_tokens_give(task, seq_len, answer):
    n_scored = 0
    for example in TaskExamples(task, seq_len, 50, 0, "train"):
        tokens, targets, mask = (example[n] for n in ("inputs", "targets", "mask"))
        answers = np.array(answer(tokens))
        np.testing.assert_array_equal(mask, answers != UNSCORED)
        np.testing.assert_array_equal(targets, np.where(mask, answers, 0))
        assert 0 <= tokens.min()
        assert tokens.max() < task.vocab_size
        n_scored += mask.sum()
    assert n_scored > 50


@every_task
def test_examples_are_a_function_of_seed_split_and_index(task, seq_len, answer):
    assert isinstance(task, Task)
    examples = TaskExamples(task, seq_len, 3, 0, "train")
    assert len(examples) == 3
    assert {name: (x.shape, x.dtype) for name, x in examples[2].items()} == {
        "inputs": ((seq_len,), np.int32),
        "targets": ((seq_len,), np.int32),
        "mask": ((seq_len,), bool),
    }
    again = TaskExamples(task, seq_len, 9, 0, "train")[2]
    for name, array in examples[2].items():
        np.testing.assert_array_equal(array, again[name])
    others = [
        examples[1],
        TaskExamples(task, seq_len, 3, 1, "train")[2],
        TaskExamples(task, seq_len, 3, 0, "eval")[2],
    ]
    assert all(np.any(other["inputs"] != again["inputs"]) for other in others)
    with pytest.raises(IndexError, match="example 3 of 3"):
        examples[3]


@every_task
def test_a_sequence_too_short_names_the_length_that_would_do(task, seq_len, answer):
    TaskExamples(task, task.min_len, 1, 0, "train")[0]
    message = (
        rf"data.seq_len .* must be at least {task.min_len} for .*got {task.min_len - 1}"
    )
    with pytest.raises(DataError, match=message):
        TaskExamples(task, task.min_len - 1, 1, 0, "train")


def test_each_key_is_asked_for_once_among_tokens_that_interfere():
    n, wrong_successors, filler = RANDOM_MQAR.n_pairs, 0, []
    for example in TaskExamples(RANDOM_MQAR, 64, 200, 0, "train"):
        tokens, targets, mask = (example[n] for n in ("inputs", "targets", "mask"))
        keys, values = tokens[0 : 2 * n : 2], tokens[1 : 2 * n : 2]
        assert len(set(keys)) == len(set(values)) == n
        assert 0 < min(keys)
        assert max(keys) < 16 <= min(values)
        assert not mask[: 2 * n].any()
        assert sorted(tokens[mask]) == sorted(keys)
        table = dict(zip(keys, values, strict=True))
        assert [table[key] for key in tokens[mask]] == targets[mask].tolist()
        assert not targets[~mask].any()
        is_filler = ~mask
        is_filler[: 2 * n] = False
        filler.extend(tokens[is_filler])
        wrong_successors += np.isin(tokens[is_filler], keys).sum()
    assert wrong_successors > 100
    counts = np.bincount(filler, minlength=32)
    # All tokens alike: six standard deviations of 8,600 draws among 32.
    assert np.abs(counts - np.mean(counts)).max() < 6 * np.sqrt(np.mean(counts))


@pytest.mark.parametrize("task", [MQAR, RANDOM_MQAR], ids=["constant", "random"])
def test_distance_is_counted_from_the_pair(task):
    example = TaskExamples(task, 64, 1, 0, "train")[0]
    found = distances(example)
    for position in np.flatnonzero(example["mask"]):
        back = position - found[position]
        assert example["inputs"][back] == example["inputs"][position]
        assert example["inputs"][back + 1] == example["targets"][position]
    np.testing.assert_array_equal(found >= 0, example["mask"])


def test_every_value_of_the_table_is_of_one_key_alone():
    task = build_task(MemorizationConfig(vocab_size=256))
    assert len(task.table) == len(set(task.table)) == 127
    assert 127 <= task.table.min()
    assert task.table.max() < 255


def test_a_small_power_asks_soon():
    def mean_distance(power):
        task = build_task(MqarConfig(n_pairs=8, power=power))
        examples = TaskExamples(task, 256, 30, 0, "train")
        return np.mean([np.mean(distances(one)[one["mask"]]) for one in examples])

    assert mean_distance(0.01) < 0.5 * mean_distance(1.0)


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_the_needle_lies_at_its_depth(depth):
    task = build_task(NeedleConfig(depth=depth))
    for example in TaskExamples(task, 2000, 10, 0, "train"):
        text = bytes(example["inputs"].astype(np.uint8))
        position = text.index(b"One of the special")
        assert abs(position / text.index(b" What is the special") - depth) < 0.06


WRONG = {
    "pairs": (MqarConfig(), {"vocab_size": 8, "n_pairs": 4}, "n_pairs must be <= 3"),
    "power": (MqarConfig(), {"power": 0.0}, "power must be > 0, got 0.0"),
    "vocabulary": (MqarConfig(), {"vocab_size": 3}, "vocab_size must be >= 4, got 3"),
    "recall pairs": (
        InContextRecallConfig(),
        {"vocab_size": 16, "n_pairs": 9},
        'n_pairs must be <= 8 with data.task.name = "in_context_recall" and',
    ),
    "noisy pairs": (NoisyRecallConfig(), {"n_pairs": 57}, "n_pairs must be <= 56"),
    "long motif": (
        FuzzyRecallConfig(),
        {"vocab_size": 6},
        "motif_len must be >= data.task.min_key_len = 1 and <= 2 with",
    ),
    "noise": (NoisyRecallConfig(), {"noise": 1.0}, "noise must be < 1, got 1.0"),
    "motif": (FuzzyRecallConfig(), {"motif_len": 0}, "motif_len must be >= 1, got 0"),
    "copied": (SelectiveCopyingConfig(), {"n_copied": 0}, "n_copied must be >= 1"),
    "compressed": (CompressionConfig(), {"vocab_size": 2}, "vocab_size must be >= 4"),
    "table": (MemorizationConfig(), {"table_seed": -1}, "table_seed must be >= 0"),
    "digits": (NeedleConfig(), {"n_digits": 19}, "n_digits must be <= 18, got 19"),
    "depth": (NeedleConfig(), {"depth": 1.5}, "depth must be from 0 to 1, or -1"),
    "depth below": (NeedleConfig(), {"depth": -0.5}, "depth must be from 0 to 1"),
    "moves": (WhoIsWhereConfig(), {"n_pairs": 0}, "n_pairs must be >= 1, got 0"),
    "no haystack": (
        NeedleConfig(),
        {"needle": "number"},
        'needle = "number" hides its needle in a text: name its file',
    ),
    "another task's key": (
        MemorizationConfig(),
        {"n_pairs": 4},
        'n_pairs is not a key of data.task.name = "memorization"; its keys are name, ',
    ),
}


@pytest.mark.parametrize(("config", "changes", "said"), WRONG.values(), ids=WRONG)
def test_a_change_that_the_task_cannot_have_is_refused(config, changes, said):
    with pytest.raises(DataError) as caught:
        build_task(config, **changes)
    assert str(caught.value).startswith(f"data.task.{said}")
    assert "\n" not in str(caught.value)


OF_TRAINING = {
    "name",
    "train_examples",
    "eval_examples",
    "eval_haystack",
    "pairs_in_turn",
    "train_on",
}


@pytest.mark.parametrize("kind", get_args(AnyTask))
def test_every_section_of_a_task_builds_it_with_its_numbers(kind):
    config = kind()
    task = build_task(config)
    assert isinstance(task, Task)
    numbers = config.model_dump(exclude=OF_TRAINING)
    for name in numbers.keys() - {"haystack"}:
        assert getattr(task, name) == numbers[name]


def test_a_haystack_comes_from_a_file(tmp_path):
    path = tmp_path / "hay.txt"
    path.write_bytes(PROSE)
    task = build_task(NeedleConfig(), needle="word", haystack=str(path))
    assert isinstance(task, Needle)
    assert (task.needle, task.hay) == ("word", PROSE)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"hay\.txt is empty"):
        build_task(NeedleConfig(haystack=str(path)))
    with pytest.raises(DataError, match=r"cannot read data.task.haystack .*none"):
        build_task(NeedleConfig(haystack=str(tmp_path / "none")))
