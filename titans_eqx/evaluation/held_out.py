"""The held-out text of a run, as examples."""

from titans_eqx.config import DataConfig
from titans_eqx.data import AbstractCorpus, Example, TextWindows, open_texts, spread
from titans_eqx.errors import UserError


def held_out_examples(
    data: DataConfig, length: int | None, n_examples: int
) -> tuple[AbstractCorpus, list[Example]]:
    """The held-out text that a config names, and windows spread evenly over it.

    Args:
        data: The config.
        length: Tokens in a window; None for data.seq_len.
        n_examples: The most windows.

    Raises:
        DataError: If the text is too short.
        UserError: If there is a task instead of a text.
    """
    if data.source == "task":
        raise UserError(
            "the run was trained on a task, not on a text; measure recall instead."
        )
    _, text = open_texts(data)
    windows = TextWindows(text, length or data.seq_len)
    return text, spread(windows, n_examples)
