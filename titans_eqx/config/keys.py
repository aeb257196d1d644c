"""The dotted names of a configuration, and the nearest one to a misspelt name."""

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Final

from titans_eqx.config.run import RunConfig
from titans_eqx.config.section import Section
from titans_eqx.config.toml import toml_text

SIMILARITY: Final = 0.6  # of two spellings, in [0, 1], from which on one is suggested


def _walk(section: type[Section], prefix: str) -> Iterator[tuple[str, bool]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield f"{prefix}{name}", True
            yield from _walk(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", False


_ALL: Final = tuple(_walk(RunConfig, ""))
SECTIONS: Final = tuple(name for name, is_section in _ALL if is_section)
KEYS: Final = tuple(name for name, is_section in _ALL if not is_section)


def dotted(parts: Iterable[object]) -> str:
    """Join the parts of a name, quoting those that TOML would quote.

    Args:
        parts: Names of sections, then of the key.

    Returns:
        The dotted name, on one line.
    """
    return ".".join(
        str(part) if re.fullmatch(r"[\w-]+", str(part)) else toml_text(str(part))
        for part in parts
    )


def suggestion(name: str, candidates: Iterable[str]) -> str:
    """The end of a message about a name that does not exist.

    A name in the wrong section is looked for first, then a misspelt one.

    Args:
        name: What was written.
        candidates: The names that exist.

    Returns:
        "; did you mean ...?", or an empty text if nothing is near.
    """
    names = list(candidates)
    section, _, leaf = name.rpartition(".")
    siblings = [one for one in names if one.rpartition(".")[0] == section]
    elsewhere = [one for one in names if one.rpartition(".")[2] == leaf]
    near = elsewhere or _near(name, siblings) or _near(name, names)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _near(name: str, candidates: list[str]) -> list[str]:
    return difflib.get_close_matches(name, candidates, n=1, cutoff=SIMILARITY)
