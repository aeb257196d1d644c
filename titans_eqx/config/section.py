"""What all sections of a configuration have in common."""

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

from titans_eqx.config.bounds import MAX_LEN

COMBINATION = "combination"
"""Type of the error about keys that are fine one by one but not together."""

MAX_LENGTHS: Final = 1024  # in a list


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
    is_list = all(type(n) is int and 0 < n <= MAX_LEN for n in lengths)
    if not is_list or len(lengths) > MAX_LENGTHS:
        raise PydanticCustomError(
            "lengths",
            "must be a list of at most {n} numbers, each from 1 to {max}",
            {"n": MAX_LENGTHS, "max": MAX_LEN},
        )
    return tuple(lengths)


Lengths = Annotated[tuple[int, ...], BeforeValidator(_as_lengths)]
