"""Reading a configuration from a TOML file and overrides of single keys."""

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from titans_eqx.config.errors import ConfigError, as_option, refusal, unknown_name
from titans_eqx.config.keys import KEYS, SECTIONS
from titans_eqx.config.run import RunConfig
from titans_eqx.files import read_regular

MAX_CONFIG_BYTES: Final = 2**20


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Read and check a configuration; no file that it names is opened.

    Args:
        path: TOML file. Keys that it leaves out have their defaults.
        overrides: Texts like `model.d_model=256`, which win over the file, the last one
            if several set a key. A value is TOML; what is not TOML is taken as a text,
            so that names need no quotes.

    Raises:
        ConfigError: If the file cannot be read, or a key or value is refused.
    """
    path = Path(path)
    table = _read(path)
    texts: dict[str, str] = {}
    for override in overrides:
        key, value = _parse_override(override)
        _set(table, key, value)
        texts[key] = override
    try:
        return RunConfig.model_validate(table)
    except ValidationError as error:
        raise refusal(error, str(path), texts) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_regular(path, MAX_CONFIG_BYTES).decode("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file{_nearest_file(path)}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error
    # Not only TOMLDecodeError: numbers too long and brackets too deep raise others.
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _nearest_file(path: Path) -> str:
    try:
        names = [str(one) for one in path.parent.glob("*.toml")]
    except OSError:
        return ""
    near = difflib.get_close_matches(str(path), names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _parse_override(override: str) -> tuple[str, Any]:
    # Such as a file's name in another encoding: config.toml could not hold it.
    if any("\ud800" <= character <= "\udfff" for character in override):
        raise ConfigError(f"--set {ascii(override)}: not UTF-8 text")
    key, equals, text = (part.strip() for part in override.partition("="))
    if not key or not equals:
        raise ConfigError(
            f"{as_option(override)}: write it as key=value, like model.d_model=256"
        )
    if key in SECTIONS:
        raise ConfigError(
            f"{as_option(override)}: {key} is a section; set its keys one by one"
        )
    if key not in KEYS:
        raise ConfigError(f"{as_option(override)}: {unknown_name(key)}")
    return key, _parse_value(text, override)


def _parse_value(text: str, override: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError) as error:
        if text.startswith(("[", "{", '"', "'")):
            raise ConfigError(
                f"{as_option(override)}: not valid TOML: {error}"
            ) from error
        return text
    value = parsed.pop("value")
    # A line break in the text may have started another key, and no key holds a date.
    is_plain = isinstance(value, bool | int | float | str | list | dict)
    return value if is_plain and not parsed else text


def _set(table: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        below = table.setdefault(section, {})
        if not isinstance(below, dict):
            return  # a section that the file gives as a scalar: validation says so
        table = below
    table[name] = value
