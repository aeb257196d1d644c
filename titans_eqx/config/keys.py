"""The dotted names of a configuration, and the nearest one to a misspelt name."""

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Final, get_args

from titans_eqx.config.run import RunConfig
from titans_eqx.config.section import Section
from titans_eqx.config.task import AnyTask
from titans_eqx.config.toml import toml_text

SIMILARITY: Final = 0.6  # of two spellings, in [0, 1], from which on one is suggested


def _walk(section: type[Section], prefix: str) -> Iterator[tuple[str, bool]]:
    for name, field in section.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        below = [k for k in kinds if isinstance(k, type) and issubclass(k, Section)]
        yield f"{prefix}{name}", bool(below)
        for kind in below:
            yield from _walk(kind, f"{prefix}{name}.")


# Tasks share keys: a dict keeps one of each.
_ALL: Final = dict(_walk(RunConfig, ""))
SECTIONS: Final = tuple(name for name, is_section in _ALL.items() if is_section)
KEYS: Final = tuple(name for name, is_section in _ALL.items() if not is_section)


def task_keys(name: str) -> tuple[str, ...]:
    """The keys of `data.task` with `data.task.name = name`."""
    tasks = get_args(AnyTask)
    (kind,) = (kind for kind in tasks if kind.model_fields["name"].default == name)
    return tuple(kind.model_fields)


def dotted(parts: Iterable[object]) -> str:
    """Join the parts of a name, on one line, quoting those that TOML would quote."""
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
