"""Every answer key is recomputed here from the tokens alone."""

import re

import numpy as np
import pytest

from titans_eqx.config import TaskConfig
from titans_eqx.data import UNSCORED, DataError, build_task
from titans_eqx.data.synthetic import (
    Compression,
    FuzzyRecall,
    InContextRecall,
    Memorization,
    MultiQueryRecall,
    Needle,
    SelectiveCopying,
    TaskRows,
    WhoIsWhere,
)
from titans_eqx.data.synthetic.mqar import distances

PROSE = b"It was late. Nobody had seen the lamp go out, nor heard the door. " * 3


def answer_mqar(tokens):
    """The token after a key's first place, wherever the key comes again."""
    n = MQAR.n_pairs
    table = dict(zip(tokens[0 : 2 * n : 2], tokens[1 : 2 * n : 2], strict=True))
    return [
        table[token] if place >= 2 * n and token in table else UNSCORED
        for place, token in enumerate(tokens)
    ]


def answer_recall(tokens):
    third, table, targets = 16 // 3, {}, []
    for place, token in enumerate(tokens[:-1]):
        is_key = token < third and third <= tokens[place + 1] < 2 * third
        targets.append(table.get(token, UNSCORED) if is_key else UNSCORED)
        if is_key:
            assert table.setdefault(token, tokens[place + 1]) == tokens[place + 1]
    return [*targets, UNSCORED]


def answer_fuzzy(tokens):
    """Runs of lower tokens are keys, runs of upper ones values."""
    runs = [
        (match.group().lower(), match.start(), match.end())
        for match in re.finditer(
            "k+|v+", "".join("k" if t < 8 else "v" for t in tokens)
        )
    ]
    targets, table = [UNSCORED] * len(tokens), {}
    for (_, start, stop), (_, _, end) in zip(runs[0::2], runs[1::2], strict=False):
        key, value = tuple(tokens[start:stop]), tuple(tokens[stop:end])
        if table.get(key) == value:
            targets[stop - 1 : end - 1] = value
        table.setdefault(key, value)
    return targets


def answer_copying(tokens):
    blank, cue = 14, 15
    copied = [token for token in tokens if token not in (blank, cue)]
    targets = [UNSCORED] * len(tokens)
    places = [i for i, token in enumerate(tokens) if token == cue]
    for place, token in zip(places, copied, strict=True):
        targets[place] = token
    return targets


def answer_memorization(tokens):
    table = MEMORIZATION.table
    return [
        UNSCORED if place % 2 == 0 else table[tokens[place - 1]]
        for place in range(len(tokens))
    ]


def answer_at_the_end(text, answer):
    """Targets of an answer whose bytes begin where the text ends."""
    targets = [UNSCORED] * len(text)
    # The last byte of the answer is a target only.
    start = len(text) - len(answer)
    assert text[start + 1 :] == answer[:-1]
    targets[start:] = answer
    return targets


def answer_needle(tokens):
    text = bytes(tokens.tolist())
    ((noun, key, value),) = re.findall(rb"magic (\w+)s for (\w+) is: (\w+)\. ", text)
    assert b"What is the special magic " + noun + b" for " + key + b"?" in text
    return answer_at_the_end(text, value + b".")


def answer_who_is_where(tokens):
    text = bytes(tokens.tolist())
    (person,) = re.findall(rb"Where is (\w+)\?", text)
    *_, place = re.findall(person + rb" went to the (\w+)\.", text)
    return answer_at_the_end(text, place + b".")


MQAR = MultiQueryRecall(vocab_size=32, n_pairs=7)
MEMORIZATION = Memorization(vocab_size=20, table_seed=3)
COPYING = {"vocab_size": 16, "n_copied": 9}
TASKS = {
    "mqar": (MQAR, 64, answer_mqar),
    "mqar soon": (
        MultiQueryRecall(vocab_size=32, n_pairs=7, power=0.01),
        64,
        answer_mqar,
    ),
    "recall": (InContextRecall(), 40, answer_recall),
    "noisy recall": (InContextRecall(noise=0.4), 40, answer_recall),
    "fuzzy recall": (FuzzyRecall(), 60, answer_fuzzy),
    "selective copying": (SelectiveCopying(**COPYING), 40, answer_copying),
    "compression": (Compression(**COPYING), 40, answer_copying),
    "memorization": (MEMORIZATION, 20, answer_memorization),
    "passkey": (Needle(), 400, answer_needle),
    "number in prose": (
        Needle(needle="number", hay=PROSE, n_digits=4),
        300,
        answer_needle,
    ),
    "code in prose": (Needle(needle="word", hay=PROSE), 400, answer_needle),
    "who is where": (WhoIsWhere(), 400, answer_who_is_where),
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
    for tokens, targets in TaskRows(task, seq_len, 50, 0, "train"):
        assert targets.tolist() == list(answer(tokens))
        assert 0 <= tokens.min()
        assert tokens.max() < task.vocab_size
        n_scored += np.sum(targets != UNSCORED)
    assert n_scored > 50


@every_task
def test_rows_are_a_function_of_seed_split_and_index(task, seq_len, answer):
    rows = TaskRows(task, seq_len, 3, 0, "train")
    assert len(rows) == 3
    assert rows[2].dtype == np.int32
    assert rows[2].shape == (2, seq_len)
    np.testing.assert_array_equal(rows[2], TaskRows(task, seq_len, 9, 0, "train")[2])
    others = [rows[1], TaskRows(task, seq_len, 3, 1, "train")[2]]
    others.append(TaskRows(task, seq_len, 3, 0, "held_out")[2])
    assert all(np.any(other != rows[2]) for other in others)
    with pytest.raises(IndexError, match="row 3 of 3"):
        rows[3]


@every_task
def test_a_row_too_short_names_the_length_that_would_do(task, seq_len, answer):
    TaskRows(task, task.min_len, 1, 0, "train")[0]
    message = (
        rf"data.seq_len .* must be at least {task.min_len} for .*got {task.min_len - 1}"
    )
    with pytest.raises(DataError, match=message):
        TaskRows(task, task.min_len - 1, 1, 0, "train")


def test_distance_is_counted_from_the_pair():
    row = TaskRows(MQAR, 64, 1, 0, "train")[0]
    found = distances(row)
    for place in np.flatnonzero(row[1] != UNSCORED):
        back = place - found[place]
        assert row[0, back] == row[0, place]
        assert row[0, back + 1] == row[1, place]
    assert np.all((found >= 0) == (row[1] != UNSCORED))


def test_a_small_power_asks_soon():
    def mean_distance(power):
        task = MultiQueryRecall(n_pairs=8, power=power)
        rows = TaskRows(task, 256, 30, 0, "train")
        return np.mean([np.mean(distances(row)[row[1] != UNSCORED]) for row in rows])

    assert mean_distance(0.01) < 0.5 * mean_distance(1.0)


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_the_needle_lies_at_its_depth(depth):
    for tokens, _ in TaskRows(Needle(depth=depth), 2000, 10, 0, "train"):
        text = bytes(tokens.astype(np.uint8))
        place = text.index(b"One of the special")
        assert abs(place / text.index(b" What is the special") - depth) < 0.06


WRONG = {
    "pairs": (lambda: MultiQueryRecall(vocab_size=8, n_pairs=4), r"n_pairs = 4"),
    "power": (lambda: MultiQueryRecall(power=0.0), r"power = 0.0"),
    "vocabulary": (lambda: MultiQueryRecall(vocab_size=3), r"vocab_size = 3"),
    "recall pairs": (lambda: InContextRecall(n_pairs=6), r"n_pairs = 6"),
    "noise": (lambda: InContextRecall(noise=1.0), r"noise = 1.0"),
    "motif": (lambda: FuzzyRecall(motif_len=0), r"motif_len = 0"),
    "copied": (lambda: SelectiveCopying(n_copied=0), r"n_copied = 0"),
    "compressed": (lambda: Compression(vocab_size=2), r"vocab_size = 2"),
    "table": (lambda: Memorization(table_seed=-1), r"table_seed = -1"),
    "digits": (lambda: Needle(n_digits=19), r"n_digits = 19"),
    "depth": (lambda: Needle(depth=1.5), r"depth = 1.5"),
    "moves": (lambda: WhoIsWhere(n_pairs=0), r"n_pairs = 0"),
}


@pytest.mark.parametrize(("build", "found"), WRONG.values(), ids=WRONG.keys())
def test_a_field_out_of_range_is_named(build, found):
    with pytest.raises(DataError, match=rf"data\.task\.{found} cannot be used"):
        build()


NAMES = {
    "mqar": MultiQueryRecall,
    "in_context_recall": InContextRecall,
    "noisy_recall": InContextRecall,
    "fuzzy_recall": FuzzyRecall,
    "selective_copying": SelectiveCopying,
    "compression": Compression,
    "memorization": Memorization,
    "needle": Needle,
    "who_is_where": WhoIsWhere,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_config_names_every_task(name):
    task = build_task(TaskConfig(name=name, n_pairs=4))
    assert type(task) is NAMES[name]


def test_a_haystack_comes_from_a_file(tmp_path):
    path = tmp_path / "hay.txt"
    path.write_bytes(PROSE)
    task = build_task(TaskConfig(name="needle", haystack=str(path)))
    assert task.hay == PROSE
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"hay\.txt is empty"):
        build_task(TaskConfig(name="needle", haystack=str(path)))
    with pytest.raises(DataError, match=r'"number" hides its needle in a text: .*file'):
        build_task(TaskConfig(name="needle", needle="number"))
    with pytest.raises(DataError, match=r"cannot read data.task.haystack .*none"):
        build_task(TaskConfig(name="needle", haystack=str(tmp_path / "none")))
