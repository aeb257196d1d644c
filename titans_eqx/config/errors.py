"""One line for everything that can be wrong with a configuration."""

from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from titans_eqx.config.keys import KEYS, SECTIONS, dotted, suggestion
from titans_eqx.config.section import COMBINATION
from titans_eqx.config.toml import toml_text
from titans_eqx.errors import UserError

MAX_SHOWN: Final = 60  # characters of a value that a message repeats

# What pydantic calls an error -> what is allowed.
_WANTED: Final = {
    "bool_type": "must be true or false",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "string_type": "must be a text in quotes",
    "string_too_short": "must not be empty",
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be >= {ge:g}",
    "less_than": "must be < {lt:g}",
    "less_than_equal": "must be <= {le:.12g}",
}


class ConfigError(UserError):
    """A configuration cannot be used; the message is one line."""

    def __init__(self, message: str) -> None:
        """Keep the message on one line.

        Args:
            message: Names of files and overrides in it may hold line breaks.
        """
        super().__init__(" ".join(message.splitlines()))


def refusal(
    error: ValidationError, path: str, overrides: dict[str, str]
) -> ConfigError:
    """Put the first of pydantic's complaints on one line.

    Args:
        error: What pydantic found in a whole configuration.
        path: The file that was read.
        overrides: Dotted key -> the override that set it, as the user wrote it.

    Returns:
        The error to raise.
    """
    first, *others = error.errors(include_url=False)
    keys = first.get("ctx", {}).get("keys", (dotted(first["loc"]),))
    rest = f" (and {len(others)} more)" if others else ""
    return ConfigError(
        f"{_origin(first, keys, path, overrides)}: {_describe(first)}{rest}"
    )


def _origin(
    error: ErrorDetails, keys: tuple[str, ...], path: str, overrides: dict[str, str]
) -> str:
    """Who set the keys: the file, overrides, or both."""
    used = " ".join(f"--set {overrides[key]}" for key in keys if key in overrides)
    if error["type"] == COMBINATION and used:
        return f"{path} with {used}"
    return used or path


def _describe(error: ErrorDetails) -> str:
    """Key, rule, value found, nearest spelling."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == COMBINATION:
        return context["rule"]
    key, found = dotted(error["loc"]), error["input"]
    if kind == "extra_forbidden":
        return unknown_name(key, is_section=isinstance(found, dict))
    if kind == "model_type":
        return f"{key} is a section and holds keys, got {shown(found)}"
    if kind == "literal_error":
        return f"{key} {_choice(context['expected'], found)}"
    wanted = _WANTED[kind].format(**context) if kind in _WANTED else error["msg"]
    return f"{key} {wanted}, got {shown(found)}"


def unknown_name(name: str, *, is_section: bool = False) -> str:
    """Say that a key or section does not exist.

    Args:
        name: Dotted name.
        is_section: Whether it was used as a section.

    Returns:
        The message, with the nearest name that exists if there is one.
    """
    if is_section:
        return f"{name} is not a section{suggestion(name, SECTIONS)}"
    near = suggestion(name, KEYS) or suggestion(name, SECTIONS)
    return f"{name} is not a key{near}"


def shown(value: Any) -> str:
    """A value as TOML, cut if it is long.

    Args:
        value: What a file or an override holds.

    Returns:
        At most `MAX_SHOWN` characters, on one line.
    """
    text = toml_text(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _choice(expected: str, found: object) -> str:
    # pydantic lists the names as 'a', 'b' or 'c'.
    names = expected.split("'")[1::2]
    listed = ", ".join(f'"{name}"' for name in names)
    rule = f"must be one of {listed}" if len(names) > 1 else f"must be {listed}"
    return f"{rule}, got {shown(found)}"
