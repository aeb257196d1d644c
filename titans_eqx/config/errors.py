"""One line for everything that can be wrong with a configuration."""

from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from titans_eqx.config.keys import KEYS, SECTIONS, dotted, suggestion, task_keys
from titans_eqx.config.section import COMBINATION
from titans_eqx.config.toml import toml_text
from titans_eqx.errors import UserError

MAX_SHOWN: Final = 60  # characters of a value that a message repeats
MAX_OPTION: Final = 500  # and of an option

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


def refusal(
    error: ValidationError, path: str, overrides: dict[str, str]
) -> ConfigError:
    """The error to raise for a configuration, with who set the wrong keys.

    Args:
        error: What pydantic found in a whole configuration.
        path: The file that was read.
        overrides: Dotted key -> the override that set it, as the user wrote it.
    """
    first = error.errors(include_url=False)[0]
    keys = first.get("ctx", {}).get("keys", (_key(first["loc"]),))
    used = " ".join(as_option(overrides[key]) for key in keys if key in overrides)
    if used and first["type"] == COMBINATION:
        used = f"{path} with {used}"
    return ConfigError(f"{used or path}: {complaint(error)}")


def complaint(error: ValidationError, *sections: str) -> str:
    """The first of pydantic's complaints on one line, and the number of the others.

    Args:
        error: What pydantic found.
        *sections: Where in a whole configuration the checked section belongs.

    Returns:
        Key, rule, value found, nearest spelling.
    """
    first, *others = error.errors(include_url=False)
    first["loc"] = (*sections, *first["loc"])
    return _describe(first) + (f" (and {len(others)} more)" if others else "")


def _key(location: tuple[int | str, ...]) -> str:
    # Below a section that has a choice of keys, pydantic puts the name of the choice.
    if location[:2] == ("data", "task"):
        location = location[:2] + location[3:]
    return dotted(location)


def _describe(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == COMBINATION:
        return context["rule"]
    key, found = _key(error["loc"]), error["input"]
    if kind == "extra_forbidden":
        if key in KEYS:  # of another task
            name = str(error["loc"][2])
            return (
                f'{key} is not a key of data.task.name = "{name}"; its keys are '
                f"{', '.join(task_keys(name))}"
            )
        return unknown_name(key, is_section=isinstance(found, dict))
    if kind in ("model_type", "model_attributes_type"):
        return f"{key} is a section and holds keys, got {shown(found)}"
    if kind == "union_tag_invalid":
        return f"{key}.name {_choice(context['expected_tags'], found['name'])}"
    if kind == "literal_error":
        return f"{key} {_choice(context['expected'], found)}"
    wanted = _WANTED[kind].format(**context) if kind in _WANTED else error["msg"]
    return f"{key} {wanted}, got {shown(found)}"


def unknown_name(name: str, *, is_section: bool = False) -> str:
    """Say that a dotted name is no key or section, and which the nearest one is."""
    if is_section:
        return f"{name} is not a section{suggestion(name, SECTIONS)}"
    near = suggestion(name, KEYS) or suggestion(name, SECTIONS)
    return f"{name} is not a key{near}"


def shown(value: Any) -> str:
    """A value as TOML, on one line, cut at `MAX_SHOWN` characters."""
    try:
        return _cut(toml_text(value), MAX_SHOWN)
    except RecursionError:
        return "lists in lists in lists..."


def as_option(override: str) -> str:
    """An override as the user wrote it, cut at `MAX_OPTION` characters."""
    return f"--set {_cut(override, MAX_OPTION)}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _choice(expected: str, found: object) -> str:
    # pydantic lists the names as 'a', 'b' or 'c'.
    names = expected.split("'")[1::2]
    listed = ", ".join(f'"{name}"' for name in names)
    rule = f"must be one of {listed}" if len(names) > 1 else f"must be {listed}"
    return f"{rule}, got {shown(found)}"
