"""Texts of a user as a model reads them."""

import os

import numpy as np

from titans_eqx.data import Tokenizer
from titans_eqx.errors import UserError


def to_tokens(tokenizer: Tokenizer, text: bytes) -> np.ndarray:
    """The ids of a text.

    Raises:
        UserError: If it has none.
    """
    ids = tokenizer.encode(text)
    if len(ids) == 0:
        raise UserError(f"the tokenizer makes no token of the text {text[:40]!r}.")
    return ids


def to_token(tokenizer: Tokenizer, text: str) -> int:
    """The id of a text that is one token.

    Raises:
        UserError: If it is none, or several.
    """
    ids = tokenizer.encode(os.fsencode(text))
    if len(ids) != 1:
        raise UserError(
            f"--stop must be a single token of the model's tokenizer; {text!r} has "
            f"{len(ids)}."
        )
    return int(ids[0])
