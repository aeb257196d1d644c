"""Which task a config names: the only place where a name becomes a task."""

from dataclasses import fields
from typing import Any, TypeVar

from pydantic import ValidationError

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
from titans_eqx.config.errors import complaint
from titans_eqx.data.errors import DataError
from titans_eqx.data.synthetic import (
    Compression,
    FuzzyRecall,
    InContextRecall,
    Memorization,
    MultiQueryRecall,
    Needle,
    Parity,
    SelectiveCopying,
    Task,
    WhoIsWhere,
    WordProblem,
)
from titans_eqx.data.synthetic.haystack import read_haystack

T = TypeVar("T")


def build_task(config: AnyTask, **changes: Any) -> Task:
    """Build the task that a config names.

    Args:
        config: Any of the sections that `data.task` may be.
        **changes: Keys of the section that get another value.

    Raises:
        DataError: If a key is not one of the task's, a value is out of its range, or
            the task's text cannot be read.
    """
    try:
        config = type(config).model_validate(config.model_dump() | changes)
    except ValidationError as error:
        raise DataError(complaint(error, "data", "task", config.name)) from error
    match config:
        case MqarConfig():
            return _build(MultiQueryRecall, config)
        case InContextRecallConfig():
            return _build(InContextRecall, config, noise=0.0, noise_vocab_size=0)
        case NoisyRecallConfig():
            return _build(InContextRecall, config)
        case FuzzyRecallConfig():
            return _build(FuzzyRecall, config)
        case SelectiveCopyingConfig():
            return _build(SelectiveCopying, config)
        case CompressionConfig():
            return _build(Compression, config)
        case MemorizationConfig():
            return _build(Memorization, config)
        case ParityConfig():
            return _build(Parity, config)
        case WordProblemConfig():
            return _build(WordProblem, config)
        case NeedleConfig():
            return _build(Needle, config, hay=read_haystack(config.haystack))
        case WhoIsWhereConfig():
            return _build(WhoIsWhere, config, hay=read_haystack(config.haystack))


def _build(task: type[T], config: AnyTask, **more: object) -> T:
    """A task whose fields are the keys of its section with the same names."""
    names = {field.name for field in fields(task)}  # pyright: ignore[reportArgumentType]
    return task(**config.model_dump(include=names), **more)
