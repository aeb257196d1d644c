"""Where a text repeats itself: the places where a memory can help, and shows it first.

82 % of attention's lead over gated convolutions is on tokens that repeat what the
context has had before (Zoology, arXiv 2312.04927).
"""

from typing import Final

import numpy as np

ALL: Final = "all"
NEW: Final = "new"
NEAR: Final = "near repeat"
FAR: Final = "far repeat"


def repeat_distances(tokens: np.ndarray, n: int) -> np.ndarray:
    """How far back the last `n` tokens of each place were last seen together.

    Args:
        tokens: (seq,).
        n: Tokens that have to agree, at least 1.

    Returns:
        (seq,) int64: tokens between the ends of both; 0 where they are new.
    """
    last: dict[bytes, int] = {}
    distances = np.zeros(len(tokens), np.int64)
    content = np.ascontiguousarray(tokens)
    for end in range(n, len(tokens) + 1):
        key = content[end - n : end].tobytes()
        if (before := last.get(key)) is not None:
            distances[end - 1] = end - before
        last[key] = end
    return distances


def kinds_of_context(tokens: np.ndarray, n: int, window: int) -> dict[str, np.ndarray]:
    """Which places are new, near repeats or far ones.

    Args:
        tokens: (seq,), read from the start of a sequence.
        n: Tokens that have to agree.
        window: A repeat is near if it is at most so many tokens back.

    Returns:
        (seq,) bool, by the name of the kind; True in one of them at each place.
    """
    distances = repeat_distances(tokens, n)
    return {
        NEW: distances == 0,
        NEAR: (0 < distances) & (distances <= window),
        FAR: distances > window,
    }


def contexts_of_rows(inputs: np.ndarray, n: int, window: int) -> dict[str, np.ndarray]:
    """`kinds_of_context` of rows, and `ALL`, which is every place.

    Args:
        inputs: (rows, seq).
        n: Tokens that have to agree.
        window: A repeat is near if it is at most so many tokens back.

    Returns:
        (rows, seq) bool, by name.
    """
    kinds = [kinds_of_context(row, n, window) for row in inputs]
    by_name = {name: np.stack([kind[name] for kind in kinds]) for name in kinds[0]}
    return {ALL: np.ones(inputs.shape, bool)} | by_name
