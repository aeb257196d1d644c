"""What is measured of a trained model: perplexity, recall, needles.

Each measure returns a table: a list of rows with the same columns, all plain numbers.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from titans_eqx.config import RunConfig, TaskConfig
from titans_eqx.data import (
    UNSCORED,
    TokenRows,
    build_task,
    load_tokenizer,
    open_corpora,
)
from titans_eqx.data.synthetic import MultiQueryRecall, TaskRows
from titans_eqx.data.synthetic.mqar import distances
from titans_eqx.errors import UserError
from titans_eqx.evaluation.interval import share
from titans_eqx.evaluation.scoring import Scorer
from titans_eqx.data.dataset import bits_per_byte

Table: TypeAlias = list[dict[str, Any]]
FIRST_BUCKET: Final = 32  # positions in the first bucket; each next one ends at twice


def perplexity(scorer: Scorer, config: RunConfig, length: int, n_rows: int) -> Table:
    """Loss on held-out text by position, with the memory carried along each row.

    Args:
        scorer: The model.
        config: Of its run; names the text.
        length: Tokens in a row.
        n_rows: Rows, spread evenly over the held-out text.

    Returns:
        For each range of positions: nats per token with standard error over rows, bits
        per byte, perplexity, tokens.

    Raises:
        DataError: If the held-out text is too short.
        UserError: If the run was trained on a task.
    """
    data = config.data
    if data.source == "task":
        raise UserError(
            "the run was trained on a task, not on a text; measure recall instead."
        )
    _, held_out = open_corpora(
        data.source,
        data.path,
        data.eval_path,
        data.eval_fraction,
        load_tokenizer(data.tokenizer),
    )
    rows = TokenRows(held_out, length)
    count = min(n_rows, len(rows))
    chosen = (rows[i * len(rows) // count] for i in range(count))
    losses = np.stack([loss for _, loss, _ in scorer(chosen)])
    table: Table = []
    for start, stop in [*_buckets(length), (0, length)]:
        by_row = losses[:, start:stop].mean(axis=1)
        nats = float(by_row.mean())
        error = float(by_row.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan
        table.append(
            {
                "from": start,
                "to": stop,
                "nats": nats,
                "standard error": error,
                "bits per byte": bits_per_byte(nats, held_out),
                "perplexity": math.exp(nats),
                "tokens": count * (stop - start),
            }
        )
    return table


def recall(
    scorer: Scorer,
    task: TaskConfig,
    lengths: Sequence[int],
    pairs: Sequence[int],
    n_rows: int,
    seed: int,
) -> Table:
    """Share of right answers by length and number of pairs, and by distance for MQAR.

    Args:
        scorer: The model.
        task: Which task, and its other sizes.
        lengths: Tokens in a row.
        pairs: Key-value pairs in a row.
        n_rows: Rows of each length and number.
        seed: Decides the rows.

    Returns:
        For each length and number of pairs a row for all distances (`distance` 0),
        then one for each range of distances, named by its upper end.

    Raises:
        DataError: If a number of pairs or a length does not fit the task.
    """
    table: Table = []
    for length in lengths:
        for n_pairs in pairs:
            built = build_task(task.model_copy(update={"n_pairs": n_pairs}))
            rows = list(TaskRows(built, length, n_rows, seed, "held_out"))
            counts: dict[int, list[int]] = defaultdict(lambda: [0, 0])
            for row, (targets, _, is_correct) in zip(rows, scorer(rows), strict=True):
                is_scored = targets != UNSCORED
                _count(counts[0], is_correct[is_scored])
                if isinstance(built, MultiQueryRecall):
                    distance = distances(row)
                    for start, stop in _buckets(length):
                        inside = is_scored & (distance >= start) & (distance < stop)
                        _count(counts[stop], is_correct[inside])
            table.extend(
                {"length": length, "pairs": n_pairs, "distance": stop}
                | share(*counts[stop])
                for stop in sorted(counts)
                if counts[stop][1] > 0
            )
    return table


def needle(
    scorer: Scorer,
    task: TaskConfig,
    lengths: Sequence[int],
    depths: Sequence[float],
    n_rows: int,
    seed: int,
) -> Table:
    """Share of needles found, by length and depth.

    A needle is found if every byte of the answer is the likeliest after the ones before
    it, which is what greedy generation would write.

    Args:
        scorer: The model.
        task: Which needle and haystack.
        lengths: Tokens in a row.
        depths: Where the needle lies, 0 = first, 1 = last.
        n_rows: Rows of each length and depth.
        seed: Decides the rows.

    Returns:
        A row for each length and depth.

    Raises:
        DataError: If a length is too short for the needle.
    """
    table: Table = []
    for length in lengths:
        for depth in depths:
            built = build_task(task.model_copy(update={"depth": depth}))
            rows = list(TaskRows(built, length, n_rows, seed, "held_out"))
            n_found = sum(
                bool(np.all(is_correct[targets != UNSCORED]))
                for targets, _, is_correct in scorer(rows)
            )
            table.append({"length": length, "depth": depth} | share(n_found, n_rows))
    return table


def _count(counts: list[int], is_correct: np.ndarray) -> None:
    counts[0] += int(is_correct.sum())
    counts[1] += is_correct.size


def _buckets(length: int) -> list[tuple[int, int]]:
    """Ranges of positions that double: up to 32, 64, 128, ... and the length."""
    ends = [FIRST_BUCKET]
    while ends[-1] < length:
        ends.append(2 * ends[-1])
    ends[-1] = min(ends[-1], length)
    return list(zip([0, *ends[:-1]], ends, strict=True))
