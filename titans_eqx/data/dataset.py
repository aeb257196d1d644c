"""What a run is trained and evaluated on: a text, or a synthetic task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax

from titans_eqx.config import ConfigError, RunConfig
from titans_eqx.data.corpus import Corpus, open_corpora
from titans_eqx.data.example import Dataset as Dataset
from titans_eqx.data.loader import TrainBatches
from titans_eqx.data.synthetic import Task, TaskExamples
from titans_eqx.data.tasks import build_task
from titans_eqx.data.tokenizer import Tokenizer, load_tokenizer
from titans_eqx.data.windows import TextWindows


@dataclass(frozen=True, kw_only=True)
class TextData:
    """A text to train on and a text that is held out."""

    tokenizer: Tokenizer
    train_corpus: Corpus
    eval_corpus: Corpus
    batches: TrainBatches
    eval_examples: Dataset

    @property
    def fingerprints(self) -> dict[str, str]:
        """What must stay the same when a run goes on."""
        return {
            "tokenizer": self.tokenizer.fingerprint,
            "train": self.train_corpus.fingerprint,
            "eval": self.eval_corpus.fingerprint,
        }

    def describe(self) -> str:
        """The text in a few words."""
        return (
            f"text        {self.train_corpus.n_bytes:,} bytes to train on, "
            f"{self.eval_corpus.n_bytes:,} held out"
        )


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A synthetic task; what it is evaluated on is drawn apart from the training."""

    task: Task
    batches: TrainBatches
    eval_examples: Dataset

    @property
    def fingerprints(self) -> dict[str, str]:
        """What must stay the same when a run goes on."""
        return {"task": repr(self.task)}

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


def _open_text(config: RunConfig) -> TextData:
    data = config.data
    tokenizer = load_tokenizer(data.tokenizer)
    _check_vocabulary(config, tokenizer.vocab_size, f"the tokenizer {data.tokenizer}")
    train, evaluated = open_corpora(
        data.source, data.path, data.eval_path, data.eval_fraction, tokenizer
    )
    windows = [TextWindows(train, length) for length in data.training_lengths]
    return TextData(
        tokenizer=tokenizer,
        train_corpus=train,
        eval_corpus=evaluated,
        batches=_batches(config, windows),
        eval_examples=TextWindows(evaluated, data.seq_len),
    )


def _open_task(config: RunConfig) -> TaskData:
    data, section = config.data, config.data.task
    task = build_task(section)
    _check_vocabulary(config, task.vocab_size, f"the task {section.name}")

    def examples(length: int, count: int, split: Literal["train", "eval"]) -> Dataset:
        changes = {}
        if (n_pairs := getattr(section, "n_pairs", None)) is not None:
            # Shorter sequences have less to remember, and so are easier.
            changes["n_pairs"] = max(1, n_pairs * length // data.seq_len)
        task = build_task(section, **changes)
        return TaskExamples(task, length, count, data.seed, split)

    return TaskData(
        task=task,
        batches=_batches(
            config,
            [
                examples(length, section.train_examples, "train")
                for length in data.training_lengths
            ],
        ),
        eval_examples=examples(data.seq_len, section.eval_examples, "eval"),
    )


def _batches(config: RunConfig, datasets: Sequence[Dataset]) -> TrainBatches:
    return TrainBatches(
        datasets,
        config.train.batch_size,
        config.data.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _check_vocabulary(config: RunConfig, vocab_size: int, owner: str) -> None:
    if vocab_size > config.model.vocab_size:
        raise ConfigError(
            f"model.vocab_size = {config.model.vocab_size}: {owner} has {vocab_size} "
            "tokens; set model.vocab_size to at least that."
        )
