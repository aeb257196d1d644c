"""The held-out text of a run, as examples."""

from dataclasses import dataclass

import numpy as np

from titans_eqx.config import DataConfig
from titans_eqx.data import (
    AbstractCorpus,
    Example,
    TextWindows,
    load_tokenizer,
    open_texts,
    spread,
)
from titans_eqx.data.tokenizer import token_lengths, tokenizer_name
from titans_eqx.errors import UserError


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Windows over a held-out text."""

    text: AbstractCorpus
    examples: list[Example]
    n_bytes: np.ndarray  # (examples, seq), of the text that each target stands for

    @property
    def inputs(self) -> np.ndarray:
        """(examples, seq), what the targets follow on."""
        return np.stack([example["inputs"] for example in self.examples])


def held_out_examples(data: DataConfig, length: int | None, n_examples: int) -> HeldOut:
    """The held-out text that a config names, in windows spread evenly over it.

    Args:
        data: The config.
        length: Tokens in a window; None for data.seq_len.
        n_examples: The most windows.

    Raises:
        DataError: If the text is too short, or its tokenizer cannot be loaded.
        UserError: If there is a task instead of a text.
    """
    if data.source == "task":
        raise UserError(
            "the run was trained on a task, not on a text; measure accuracy instead."
        )
    _, text = open_texts(data)
    examples = spread(TextWindows(text, length or data.seq_len), n_examples)
    name = tokenizer_name(data, text.tokenizer_fingerprint)
    lengths = token_lengths(load_tokenizer(name, text.tokenizer_fingerprint))
    targets = np.stack([example["targets"] for example in examples])
    return HeldOut(text=text, examples=examples, n_bytes=lengths[targets])
