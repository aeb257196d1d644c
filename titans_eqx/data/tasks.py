"""Which task a config names: the only place where a name becomes a task."""

from titans_eqx.config import TaskConfig
from titans_eqx.data.errors import DataError
from titans_eqx.data.synthetic import (
    Compression,
    FuzzyRecall,
    InContextRecall,
    Memorization,
    MultiQueryRecall,
    Needle,
    SelectiveCopying,
    Task,
    WhoIsWhere,
)
from titans_eqx.data.synthetic.haystack import read_haystack


def build_task(config: TaskConfig) -> Task:
    """Build the task that a config names.

    Args:
        config: The task and its sizes; keys that it does not need are not looked at.

    Returns:
        The task.

    Raises:
        DataError: If a size is out of the task's range, or its text cannot be read.
    """
    vocab_size, n_pairs, n_copied = config.vocab_size, config.n_pairs, config.n_copied
    match config.name:
        case "mqar":
            return MultiQueryRecall(
                vocab_size=vocab_size, n_pairs=n_pairs, power=config.power
            )
        case "in_context_recall":
            return InContextRecall(vocab_size=vocab_size, n_pairs=n_pairs)
        case "noisy_recall":
            return InContextRecall(
                vocab_size=vocab_size, n_pairs=n_pairs, noise=config.noise
            )
        case "fuzzy_recall":
            return FuzzyRecall(
                vocab_size=vocab_size, n_pairs=n_pairs, motif_len=config.motif_len
            )
        case "selective_copying":
            return SelectiveCopying(vocab_size=vocab_size, n_copied=n_copied)
        case "compression":
            return Compression(vocab_size=vocab_size, n_copied=n_copied)
        case "memorization":
            return Memorization(vocab_size=vocab_size)
        case "needle":
            if config.needle != "passkey" and not config.haystack:
                raise DataError(
                    f'data.task.needle = "{config.needle}" hides its needle in a text: '
                    'name its file in data.task.haystack, or use "passkey"'
                )
            return Needle(
                needle=config.needle,
                n_digits=config.n_digits,
                depth=config.depth,
                hay=read_haystack(config.haystack),
            )
        case "who_is_where":
            return WhoIsWhere(n_pairs=n_pairs, hay=read_haystack(config.haystack))
