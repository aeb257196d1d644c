"""Input that nobody would write by hand, for every reader of files."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

# A few in the suite; many with `--hypothesis-profile=thorough`.
few = settings(max_examples=settings().max_examples // 4)

numbers = st.one_of(
    st.integers(-(10**30), 10**30),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64, 10**18, 10**400]),
    st.floats(),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text())
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=10,
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file in which some stretches are others, or gone, or doubled."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.integers(start, min(len(content), start + 64)))
        middle = draw(st.binary(max_size=64) | st.just(2 * content[start:stop]))
        content = content[:start] + middle + content[stop:]
    return content[: draw(st.integers(0, len(content)) | st.just(len(content)))]


@st.composite
def changed(draw: st.DrawFn, tree: Any) -> Any:
    """A value of JSON in which one place holds something else, or is gone."""
    if not isinstance(tree, dict) or not tree or draw(st.integers(0, 4)) == 0:
        return draw(json_values)
    copy = dict(tree)
    key = draw(st.sampled_from(sorted(copy)) | st.text())
    if draw(st.integers(0, 5)) == 0:
        copy.pop(key, None)
    else:
        copy[key] = draw(changed(copy.get(key)))
    return copy


def as_json(value: Any) -> bytes:
    """JSON as Python writes it, with its NaN."""
    return json.dumps(value).encode()


def accept_or_refuse(
    read: Callable[..., Any],
    *arguments: Any,
    refusal: type[Exception] | tuple[type[Exception], ...],
) -> Any:
    """Read something: it can be used, or the refusal is one line; nothing else happens.

    Returns:
        What was read, or None.
    """
    try:
        return read(*arguments)
    except refusal as error:
        line = str(error)
        assert len(line.splitlines()) == 1, line
        assert len(line) < 2000
        return None
