"""Answer keys: what the tokens of an example alone say about it."""

import re
from itertools import permutations

import numpy as np

from titans_eqx.config import MemorizationConfig, MqarConfig
from titans_eqx.data import build_task

MQAR = build_task(MqarConfig(vocab_size=32, n_pairs=7, filler="constant"))
MEMORIZATION = build_task(MemorizationConfig(vocab_size=20, table_seed=3))
UNSCORED = -1  # in the answers


def answer_mqar(tokens):
    """The token after a key's first position, wherever the key comes again."""
    n = MQAR.n_pairs
    table = dict(zip(tokens[0 : 2 * n : 2], tokens[1 : 2 * n : 2], strict=True))
    return [
        table[token] if position >= 2 * n and token in table else UNSCORED
        for position, token in enumerate(tokens)
    ]


def answer_recall(tokens):
    """Keys are below 8 and stand at even places, values below 16."""
    table, targets = {}, [UNSCORED] * len(tokens)
    for place in range(0, len(tokens), 2):
        key, value = tokens[place : place + 2]
        if key < 8:
            assert 8 <= value < 16
            targets[place] = table.get(key, UNSCORED)
            assert table.setdefault(key, value) == value
    assert targets[-2] != UNSCORED
    return targets


def answer_fuzzy(tokens):
    """Runs of lower tokens are keys, runs of upper ones values, blanks come first."""
    kinds = "".join("b" if t == 15 else "k" if t < 7 else "v" for t in tokens)
    targets, table = [UNSCORED] * len(tokens), {}
    for match in re.finditer("(k+)(v*)", kinds):
        start, stop = match.span(1)
        key, value = tuple(tokens[start:stop]), tuple(tokens[stop : match.end()])
        assert len(set(key)) == len(key) <= 3
        known = table.setdefault(key, value)
        if match.end() < len(tokens):
            assert known == value
        if known is not value:
            targets[stop - 1 : stop - 1 + len(known)] = known
    assert re.fullmatch("b+(k+v+)+k+v*", kinds)
    assert targets[-1] != UNSCORED
    return targets


def answer_selective_copying(tokens):
    blank, cue = 14, 15
    (after,) = np.flatnonzero(tokens == cue) + 1
    copied = [token for token in tokens[: after - 1] if token != blank]
    assert tokens[after - 2] != blank
    assert set(tokens[after:]) == {blank}
    return [UNSCORED] * after + copied


def answer_compression(tokens):
    blank, cue = 14, 15
    copied = [token for token in tokens if token not in (blank, cue)]
    targets = [UNSCORED] * len(tokens)
    cues = [i for i, token in enumerate(tokens) if token == cue]
    for position, token in zip(cues, copied, strict=True):
        targets[position] = token
    return targets


def answer_parity(tokens):
    return [int(sum(tokens[: place + 1])) % 2 for place in range(len(tokens))]


def answer_word_problem(tokens):
    """By products of permutation matrices."""
    matrices = [np.eye(4, dtype=int)[list(one)].T for one in permutations(range(4))]
    state, targets = np.eye(4, dtype=int), []
    for token in tokens:
        state = matrices[token] @ state
        (target,) = (i for i, one in enumerate(matrices) if np.array_equal(one, state))
        targets.append(target)
    return targets


def answer_spelled_word_problem(tokens):
    """Two tokens each, of which the second is the first plus 24."""
    firsts, seconds = tokens[::2], tokens[1::2]
    assert np.array_equal(firsts[: len(seconds)] + 24, seconds)
    targets = np.full(len(tokens), UNSCORED)
    targets[1::2] = answer_word_problem(firsts[: len(seconds)])
    return targets


def answer_memorization(tokens):
    table = MEMORIZATION.table
    return [
        UNSCORED if position % 2 == 0 else table[tokens[position - 1]]
        for position in range(len(tokens))
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
    ((noun, key, value),) = re.findall(rb"magic (\w+)s for (\w+) is: ([\w-]+)\. ", text)
    assert b"What is the special magic " + noun + b" for " + key + b"?" in text
    return answer_at_the_end(text, value + b".")


def answer_who_is_where(tokens):
    text = bytes(tokens.tolist())
    (person,) = re.findall(rb"Where is (\w+)\?", text)
    *_, place = re.findall(person + rb" went to the (\w+)\.", text)
    return answer_at_the_end(text, place + b".")
