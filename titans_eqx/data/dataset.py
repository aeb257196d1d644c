"""What a run is trained and evaluated on: a text, or a synthetic task."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np

from titans_eqx.config import ConfigError, RunConfig
from titans_eqx.data import (
    AlternatingBatches,
    Corpus,
    Rows,
    Tokenizer,
    TokenRows,
    TrainBatches,
    build_task,
    load_tokenizer,
    open_corpora,
)
from titans_eqx.data.synthetic import Task, TaskRows
from titans_eqx.training.loss import NATS_PER_BIT


@runtime_checkable
class Batches(Protocol):
    """Training batches as a pure function of the step."""

    def iterate(self, start_step: int, stop_step: int) -> Iterator[np.ndarray]:
        """Yield the batches of a range of steps."""
        ...


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """A text to train on and a text that is held out."""

    tokenizer: Tokenizer
    train: Corpus
    held_out: Corpus
    batches: Batches
    held_out_rows: Rows

    @property
    def fingerprints(self) -> dict[str, str]:
        """What must stay the same when a run goes on."""
        return {
            "tokenizer": self.tokenizer.fingerprint,
            "train": self.train.fingerprint,
            "held_out": self.held_out.fingerprint,
        }

    def describe(self) -> str:
        """The text in a few words."""
        return (
            f"text        {self.train.n_bytes:,} bytes to train on, "
            f"{self.held_out.n_bytes:,} held out"
        )


@dataclass(frozen=True, kw_only=True)
class TaskSource:
    """A synthetic task; its held-out rows are drawn apart from the training rows."""

    task: Task
    batches: Batches
    held_out_rows: Rows

    @property
    def fingerprints(self) -> dict[str, str]:
        """What must stay the same when a run goes on."""
        return {"task": repr(self.task)}

    def describe(self) -> str:
        """The task in a few words."""
        return f"task        {self.task}"


Source: TypeAlias = TextSource | TaskSource


def open_source(config: RunConfig) -> Source:
    """Open what a config names, and check that it is enough.

    Args:
        config: Names the text or the task, and how it is cut.

    Returns:
        The opened source.

    Raises:
        DataError: If a text is missing, unreadable or too short, or a task does not fit
            the length.
        ConfigError: If there are more tokens than the model has.
    """
    return _open_task(config) if config.data.source == "task" else _open_text(config)


def held_out_rows(source: Source, n_rows: int) -> list[np.ndarray]:
    """Held-out rows, spread evenly over all there are.

    Args:
        source: The opened source.
        n_rows: How many rows; all if there are fewer.

    Returns:
        The rows, the same ones at every call.
    """
    rows = source.held_out_rows
    count = min(n_rows, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def bits_per_byte(loss: float, corpus: Corpus) -> float:
    """Loss in bits for each byte of the text that the tokens stand for.

    Args:
        loss: Nats per token.
        corpus: Gives the number of tokens for each byte.

    Returns:
        Bits per byte, comparable between tokenizers and with compressors.
    """
    return loss / NATS_PER_BIT * corpus.n_tokens / corpus.n_bytes


def _open_text(config: RunConfig) -> TextSource:
    data = config.data
    tokenizer = load_tokenizer(data.tokenizer)
    _check_vocabulary(config, tokenizer.vocab_size, f"the tokenizer {data.tokenizer}")
    train, held_out = open_corpora(
        data.source, data.path, data.eval_path, data.eval_fraction, tokenizer
    )
    rows = [TokenRows(train, length) for length in data.training_lengths]
    return TextSource(
        tokenizer=tokenizer,
        train=train,
        held_out=held_out,
        batches=_batches(config, rows),
        held_out_rows=TokenRows(held_out, data.seq_len),
    )


def _open_task(config: RunConfig) -> TaskSource:
    data = config.data
    task = build_task(data.task)
    _check_vocabulary(config, task.vocab_size, f"the task {data.task.name}")

    def task_rows(length: int, n_rows: int, split: Literal["train", "held_out"]):
        # Shorter rows have less to remember, and so are easier.
        n_pairs = max(1, data.task.n_pairs * length // data.seq_len)
        shorter = data.task.model_copy(update={"n_pairs": n_pairs})
        return TaskRows(build_task(shorter), length, n_rows, data.seed, split)

    rows = [
        task_rows(length, data.task.train_rows, "train")
        for length in data.training_lengths
    ]
    return TaskSource(
        task=task,
        batches=_batches(config, rows),
        held_out_rows=task_rows(data.seq_len, data.task.held_out_rows, "held_out"),
    )


def _batches(config: RunConfig, rows: Sequence[Rows]) -> Batches:
    batches = [
        TrainBatches(
            one,
            config.train.batch_size,
            # An order of its own for each, or a length that is named twice would read
            # the same rows twice.
            (config.data.seed + place) % 2**32,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        for place, one in enumerate(rows)
    ]
    return batches[0] if len(batches) == 1 else AlternatingBatches(batches)


def _check_vocabulary(config: RunConfig, vocab_size: int, owner: str) -> None:
    if vocab_size > config.model.vocab_size:
        raise ConfigError(
            f"model.vocab_size = {config.model.vocab_size}: {owner} has {vocab_size} "
            "tokens; set model.vocab_size to at least that."
        )
