"""Configurations and values as TOML text."""

import json
from collections.abc import Iterator
from typing import Final

from titans_eqx.config.section import Section

# The one control character that JSON writes as it is and TOML wants escaped.
DELETE: Final = "\x7f"
MAX_DECIMAL_BITS: Final = 10_000


def to_toml(config: Section) -> str:
    """Write a configuration as TOML, with what each key means beside it.

    Args:
        config: Any section; usually a whole `RunConfig`.

    Returns:
        Text that `load_config` reads back to an equal configuration. A key whose value
        is None is absent, as TOML has no null.
    """
    return "\n".join(_lines(config, "")).lstrip("\n") + "\n"


def toml_text(value: object) -> str:
    """Write one value as TOML, on one line.

    Args:
        value: A text, number, truth value, or a list or dict of these.

    Returns:
        TOML; for other values (dates, None) their Python text.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False).replace(DELETE, "\\u007f")
        case list() | tuple():
            return "[" + ", ".join(toml_text(item) for item in value) + "]"
        case dict():
            items = (f"{toml_text(k)} = {toml_text(v)}" for k, v in value.items())
            return "{" + ", ".join(items) + "}"
        case int():
            # In hexadecimal, because Python refuses to write thousands of digits.
            return str(value) if value.bit_length() < MAX_DECIMAL_BITS else hex(value)
        case _:
            # Python's shortest exact text of a number is TOML too.
            return str(value)


def _lines(section: Section, name: str) -> Iterator[str]:
    """The keys of a section, then its sections, as TOML demands."""
    fields = type(section).model_fields
    values = {key: getattr(section, key) for key in fields}
    subsections = {k: v for k, v in values.items() if isinstance(v, Section)}
    if name:
        yield f"\n[{name}]"
    for key, value in values.items():
        if key in subsections:
            continue
        meaning = fields[key].description
        if value is None:
            yield f"# {key} is absent  # {meaning}"
        else:
            yield f"{key} = {toml_text(value)}  # {meaning}"
    for key, subsection in subsections.items():
        yield from _lines(subsection, f"{name}.{key}" if name else key)
