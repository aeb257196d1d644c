"""What a run is trained and evaluated on: a text, or a synthetic task."""

import functools
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import jax

from titans_eqx.config import ConfigError, DataConfig, RunConfig
from titans_eqx.data.corpus import AbstractCorpus, open_corpora
from titans_eqx.data.example import Dataset as Dataset
from titans_eqx.data.loader import TrainBatches
from titans_eqx.data.rows import DocumentRows
from titans_eqx.data.shard_folder import open_shards
from titans_eqx.data.synthetic import EveryToken, Task, TaskExamples
from titans_eqx.data.synthetic.haystack import NOISE, HidesInText
from titans_eqx.data.tasks import build_task
from titans_eqx.data.tokenizer import (
    Tokenizer,
    can_load_tokenizer,
    load_tokenizer,
    tokenizer_name,
)
from titans_eqx.data.windows import TextWindows, WindowStreams

WASTEFUL_FILL: Final = 0.9

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TextData:
    """A text to train on and a text that is held out."""

    tokenizer: Tokenizer | None  # None: of shards, without the package it needs
    train_corpus: AbstractCorpus
    eval_corpus: AbstractCorpus
    batches: TrainBatches
    eval_examples: Dataset

    @property
    def fingerprints(self) -> dict[str, str]:
        """What must stay the same when a run goes on."""
        return {
            "tokenizer": self.train_corpus.tokenizer_fingerprint,
            "train": self.train_corpus.fingerprint,
            "eval": self.eval_corpus.fingerprint,
        }

    def describe(self) -> str:
        """The text in a few words."""
        return (
            f"text        {self.train_corpus.n_bytes:,} bytes to train on, "
            f"{self.eval_corpus.n_bytes:,} held out"
            f"{'' if self.tokenizer else ' (no tokenizer: no samples)'}"
        )


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A synthetic task; what it is evaluated on is drawn apart from the training."""

    task: Task
    eval_task: Task  # may differ, as in the text in which something is hidden
    batches: TrainBatches
    eval_examples: Dataset

    @functools.cached_property  # every checkpoint asks, and the texts may be long
    def fingerprints(self) -> dict[str, str]:
        """What must stay the same when a run goes on."""
        # A task does not show its text. Without one, checkpoints have the task alone.
        both = (self.task, self.eval_task)
        texts = [task.hay for task in both if isinstance(task, HidesInText)]
        hashes = [hashlib.sha256(text).hexdigest() for text in texts]
        named = hashes if any(text != NOISE for text in texts) else []
        return {"task": " ".join([repr(self.task), *named])}

    def describe(self) -> str:
        """The task in a few words."""
        return f"task        {self.task}"


def open_dataset(config: RunConfig) -> TextData | TaskData:
    """Open what a config names, and check that it is enough.

    Raises:
        DataError: If a text is missing, unreadable or too short, or a task does not fit
            the length.
        ConfigError: If there are more tokens than the model has.
    """
    return _open_task(config) if config.data.source == "task" else _open_text(config)


def open_texts(data: DataConfig) -> tuple[AbstractCorpus, AbstractCorpus]:
    """Open the training and the held-out text that a config names.

    Raises:
        DataError: If either has no usable text, or a tokenizer cannot be used.
    """
    if data.source == "shards":
        return open_shards(data.shard_folder)
    return open_corpora(
        data.source,
        data.path,
        data.eval_path,
        data.eval_fraction,
        load_tokenizer(data.tokenizer),
    )


def _open_text(config: RunConfig) -> TextData:
    data = config.data
    train, evaluated = open_texts(data)
    fingerprint = train.tokenizer_fingerprint
    name = tokenizer_name(data, fingerprint)
    # Shards need none; where one can be had, samples are written.
    is_there = data.source != "shards" or can_load_tokenizer(name)
    tokenizer = load_tokenizer(name, fingerprint) if is_there else None
    _check_vocabulary(config, train.vocab_size, f"the tokenizer {name}")
    go_on = config.train.carry_state
    examples = [
        _examples(train, length, data, go_on=go_on) for length in data.training_lengths
    ]
    if go_on:
        streams = [WindowStreams(one, config.train.batch_size) for one in examples]
        batches = _batches(config, streams, shuffle=False)
    else:
        batches = _batches(config, examples)
    return TextData(
        tokenizer=tokenizer,
        train_corpus=train,
        eval_corpus=evaluated,
        batches=batches,
        eval_examples=_examples(evaluated, data.seq_len, data),
    )


def _examples(
    corpus: AbstractCorpus, length: int, data: DataConfig, *, go_on: bool = False
) -> Dataset:
    """A text, cut or packed into examples of a length that may go on one another."""
    if data.packing == "stream":
        return TextWindows(corpus, length)
    rows = DocumentRows(corpus, length, data.max_documents, go_on=go_on)
    if rows.fill < WASTEFUL_FILL and len(rows) > 1:
        _logger.warning(
            "data.max_documents = %d leaves %.0f %% of the rows of %d tokens empty: %s "
            "has more documents to a row; raise it",
            data.max_documents,
            100 * (1 - rows.fill),
            length,
            corpus.name,
        )
    return rows


def _open_task(config: RunConfig) -> TaskData:
    data, section = config.data, config.data.task
    task = build_task(section)
    _check_vocabulary(config, task.vocab_size, f"the task {section.name}")

    in_turn = getattr(section, "pairs_in_turn", ())

    def of_turn(turn: int, length: int) -> Dataset:
        changes = {}
        if in_turn:
            changes["n_pairs"] = in_turn[turn]
        elif (n_pairs := getattr(section, "n_pairs", None)) is not None:
            # Shorter sequences have less to remember, and so are easier.
            changes["n_pairs"] = max(1, n_pairs * length // data.seq_len)
        task, count = build_task(section, **changes), section.train_examples
        examples = TaskExamples(task, length, count, data.seed, "train")
        is_every = getattr(section, "train_on", "answers") == "tokens"
        return EveryToken(examples) if is_every else examples

    turns = [of_turn(*turn) for turn in enumerate(data.training_lengths)]
    asked, count = build_task(section, **section.eval_changes), section.eval_examples
    return TaskData(
        task=task,
        eval_task=asked,
        batches=_batches(config, turns),
        eval_examples=TaskExamples(asked, data.seq_len, count, data.seed, "eval"),
    )


def _batches(
    config: RunConfig, datasets: Sequence[Dataset], *, shuffle: bool = True
) -> TrainBatches:
    return TrainBatches(
        datasets,
        config.train.batch_size,
        config.data.seed,
        shuffle=shuffle,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _check_vocabulary(config: RunConfig, vocab_size: int, owner: str) -> None:
    if vocab_size > config.model.vocab_size:
        raise ConfigError(
            f"model.vocab_size = {config.model.vocab_size}: {owner} has {vocab_size} "
            "tokens; set model.vocab_size to at least that."
        )
