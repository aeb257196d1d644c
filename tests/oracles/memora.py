"""Memora of one head in plain NumPy float64, one token at a time (MIRAS)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tests.oracles.memory import (
    Matrices,
    clip_factor,
    copy_matrices,
    memory_forward,
    surprise,
)


class MemoraOracleResult(NamedTuple):
    """What `memora_oracle` returns."""

    reads: np.ndarray  # (seq, d), y_t
    weights: Matrices  # W after the last token
    anchor: Matrices  # weights at the end of the last whole chunk
    offset: int  # tokens read since the anchor, in [0, chunk_len)


def column_softmax(matrix: np.ndarray) -> np.ndarray:
    """Every column positive, with the sum one."""
    powers = np.exp(matrix - matrix.max(axis=0))
    return powers / powers.sum(axis=0)


def memora_oracle(
    weights: Sequence[np.ndarray],
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    decay: np.ndarray,
    learning_rate: np.ndarray,
    *,
    chunk_len: int,
    anchor: Sequence[np.ndarray],
    offset: int,
    clip: float | None = None,
    residual: bool = True,
    norm: bool = True,
    read: str = "after",
) -> MemoraOracleResult:
    """`W_t = softmax((1 - alpha_t) log W_{t-1} - theta_t u_t)`, column by column.

    Args:
        weights: W before the first of these tokens.
        queries: q_t, (seq, d).
        keys: k_t, (seq, d).
        values: v_t, (seq, d).
        decay: alpha_t, (seq, depth).
        learning_rate: theta_t, (seq, depth).
        chunk_len: tokens that share one anchor.
        anchor: where gradients are taken.
        offset: tokens already read since the anchor.
        clip: largest norm of u_t that is written whole; None writes all of it.
        residual: as in `memory_forward`.
        norm: as in `memory_forward`.
        read: "after" reads at token t after its write, "before" before it.

    Returns:
        The reads, and all that the next piece of the stream needs.
    """
    network = {"residual": residual, "norm": norm}
    w, at = copy_matrices(weights), copy_matrices(anchor)
    reads = []
    for t in range(len(keys)):
        if read == "before":
            reads.append(memory_forward(w, queries[t], **network))
        u = surprise(at, keys[t], values[t], **network)
        factor = clip_factor(u, clip)
        for layer in range(len(w)):
            step = learning_rate[t, layer] * factor * u[layer]
            kept = (1 - decay[t, layer]) * np.log(w[layer])
            w[layer] = column_softmax(kept - step)
        if read == "after":
            reads.append(memory_forward(w, queries[t], **network))
        offset += 1
        if offset == chunk_len:
            at, offset = copy_matrices(w), 0
    return MemoraOracleResult(np.array(reads), w, at, offset)
