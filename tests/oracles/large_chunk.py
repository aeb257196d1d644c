"""A rule that writes once per chunk, of one head in plain NumPy float64.

One token at a time; the weights wait for the end of the chunk. Muon's orthogonalised
step is taken by a singular value decomposition, on which its polynomial acts number by
number.
"""

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

POLYNOMIALS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


class LargeChunkResult(NamedTuple):
    """What `large_chunk_oracle` returns."""

    reads: np.ndarray  # (seq, d), y_t
    weights: Matrices  # those of the current chunk's start
    update: Matrices  # S after the last token
    kept: np.ndarray  # (depth,), product of the current chunk's 1 - alpha
    rate: np.ndarray  # (depth,), sum of its theta over chunk_len
    offset: int  # tokens read of the current chunk


def orthogonalized(x: np.ndarray) -> np.ndarray:
    """Five steps `s -> a s + b s^3 + c s^5` on the singular values over their norm."""
    left, singular, right = np.linalg.svd(x, full_matrices=False)
    singular = singular / np.sqrt(np.sum(singular**2) + 1e-14)
    for a, b, c in POLYNOMIALS:
        singular = a * singular + b * singular**3 + c * singular**5
    return (left * singular) @ right


def probabilities(logits: np.ndarray) -> np.ndarray:
    """What exponentials share of their column."""
    powers = np.exp(logits)
    return powers / powers.sum(axis=0)


def large_chunk_oracle(
    weights: Sequence[np.ndarray],
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    decay: np.ndarray,
    learning_rate: np.ndarray,
    momentum: np.ndarray | None = None,
    *,
    chunk_len: int,
    are_probabilities: bool = False,
    clip: float | None = None,
    residual: bool = True,
    norm: bool = True,
) -> LargeChunkResult:
    """Reads and writes one head's memory from the start of a chunk on.

    Args:
        weights: M before the first token.
        queries: q_t, (seq, d).
        keys: k_t, (seq, d).
        values: v_t, (seq, d).
        decay: alpha_t, (seq, depth).
        learning_rate: theta_t, (seq, depth).
        momentum: eta_t, (seq, depth), for Muon; None is plain gradient descent.
        chunk_len: tokens between two changes of the weights.
        are_probabilities: what is descended are the logarithms of the weights, of which
            each column sums to one; the given weights are the first logarithms.
        clip: largest norm of a surprise that is written whole; None writes all of it.
        residual: as in `memory_forward`.
        norm: as in `memory_forward`.
    """
    network = {"residual": residual, "norm": norm}
    m = copy_matrices(weights)
    if are_probabilities:
        m = [probabilities(w) for w in m]
    s = [np.zeros_like(w) for w in m]
    kept, rate, offset = np.ones(len(m)), np.zeros(len(m)), 0
    reads = []
    for t in range(len(keys)):
        reads.append(memory_forward(m, queries[t], **network))
        u = surprise(m, keys[t], values[t], **network)
        factors = 1 - decay[t] if momentum is None else momentum[t]
        for layer in range(len(m)):
            step = learning_rate[t, layer] * clip_factor(u, clip)
            s[layer] = factors[layer] * s[layer] - step * u[layer]
        kept = kept * (1 - decay[t])
        rate = rate + learning_rate[t] / chunk_len
        offset += 1
        if offset < chunk_len:
            continue
        for layer in range(len(m)):
            if are_probabilities:
                m[layer] = probabilities(kept[layer] * np.log(m[layer]) + s[layer])
                s[layer] = np.zeros_like(s[layer])
            elif momentum is None:
                m[layer] = kept[layer] * m[layer] + s[layer]
                s[layer] = np.zeros_like(s[layer])
            else:
                change = rate[layer] * orthogonalized(s[layer])
                m[layer] = kept[layer] * m[layer] + change
        kept, rate, offset = np.ones(len(m)), np.zeros(len(m)), 0
    return LargeChunkResult(np.array(reads), m, s, kept, rate, offset)
