"""What all sections of a configuration have in common."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

COMBINATION = "combination"
"""Type of the error about keys that are fine one by one but not together."""


class Section(BaseModel):
    """A frozen group of keys; unknown keys and wrong types are refused.

    Types are strict, so that a quoted number is never taken for a number; a whole
    number may stand where a real one is wanted.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
    )


def combination_error(rule: str, *keys: str) -> PydanticCustomError:
    """The error of a combination of keys that cannot work.

    Args:
        rule: What is allowed, what was found and what to do, on one line.
        *keys: Dotted names of the keys involved, for finding who set them.

    Returns:
        An error that a pydantic validator may raise.
    """
    # The text goes in as a value: braces in a template would be read as fields.
    return PydanticCustomError(COMBINATION, "{rule}", {"rule": rule, "keys": keys})


def _as_lengths(value: object) -> object:
    lengths = value if isinstance(value, list | tuple) else [None]
    if not all(type(n) is int and n > 0 for n in lengths):
        raise PydanticCustomError("lengths", "must be a list of numbers of tokens")
    return tuple(lengths)


Lengths = Annotated[tuple[int, ...], BeforeValidator(_as_lengths)]
