"""The attention modules in plain NumPy: projections, heads, then the oracle of a head.

Parameters are namespaces of arrays, as `tests.oracles.parameters` makes them.
"""

from typing import Any

import numpy as np

from tests.oracles import blocks

Parameters = Any


def linear(p: Parameters, x: np.ndarray) -> np.ndarray:
    """Rows through an `equinox.nn.Linear`."""
    y = x @ p.weight.T
    return y if p.bias is None else y + p.bias


def split(x: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of the stream as (heads, seq, width)."""
    return x.reshape(len(x), n_heads, x.shape[1] // n_heads).swapaxes(0, 1)


def join(x: np.ndarray) -> np.ndarray:
    """The inverse of `split`."""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)


def sliding_attention(
    p: Parameters, x: np.ndarray, *, n_heads: int, window: int, base: float
) -> np.ndarray:
    """`SlidingAttention` of a whole sequence; its convolutions see tokens only."""
    heads = p.heads
    y = [
        blocks.sliding_attention(*one_head, window=window, base=base)
        for one_head in zip(
            *_of_tokens(p, x, x[:0], n_heads),
            *_keys_and_values(heads, heads.persistent_tokens, n_heads),
            strict=True,
        )
    ]
    return linear(heads.output_projection, join(np.array(y)))


def segment_attention(
    p: Parameters,
    x: np.ndarray,
    retrieved: np.ndarray,
    before: np.ndarray,
    *,
    n_heads: int,
    base: float,
) -> np.ndarray:
    """`SegmentAttention` of one segment, or of the start of one.

    Its convolutions see the tokens `before` it too.
    """
    heads = p.heads
    y = [
        blocks.segment_attention(*one_head, segment_len=len(x), base=base)
        for one_head in zip(
            *_of_tokens(p, x, before, n_heads),
            *_keys_and_values(heads, retrieved, n_heads),
            *_keys_and_values(heads, heads.persistent_tokens, n_heads),
            strict=True,
        )
    ]
    return linear(heads.output_projection, join(np.array(y)))


def _of_tokens(
    p: Parameters, x: np.ndarray, before: np.ndarray, n_heads: int
) -> list[np.ndarray]:
    """Queries, keys and values of each head, convolved over the tokens before too."""
    heads, x = p.heads, np.concatenate([before, x])
    projections = (heads.query_projection, heads.key_projection, heads.value_projection)
    rows = [linear(projection, x) for projection in projections]
    if p.convs:
        rows = [
            blocks.causal_conv(row, conv.kernel)
            for row, conv in zip(rows, p.convs, strict=True)
        ]
    return [split(row[len(before) :], n_heads) for row in rows]


def _keys_and_values(
    heads: Parameters, rows: np.ndarray, n_heads: int
) -> tuple[np.ndarray, np.ndarray]:
    projections = (heads.key_projection, heads.value_projection)
    keys, values = (split(linear(p, rows), n_heads) for p in projections)
    return keys, values
