"""The Omega rule of one head in plain NumPy float64, one token at a time.

Every token evaluates all pairs of its window anew, at the anchor of its own chunk.
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


class Pair(NamedTuple):
    """What a token has left in the window."""

    key: np.ndarray  # (d,)
    value: np.ndarray  # (d,)
    gamma: np.ndarray  # (depth,), its share once it is no longer the newest


class OmegaOracleResult(NamedTuple):
    """What `omega_oracle` returns."""

    reads: np.ndarray  # (seq, d), y_t
    weights: Matrices  # M after the last token
    velocity: Matrices  # S after the last token
    anchor: Matrices  # weights at the end of the last whole chunk
    pairs: list[Pair]  # the last `window - 1`, oldest first; fewer if there are not
    offset: int  # tokens read since the anchor, in [0, chunk_len)


def omega_oracle(
    weights: Sequence[np.ndarray],
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    decay: np.ndarray,
    momentum: np.ndarray,
    learning_rate: np.ndarray,
    gamma: np.ndarray,
    *,
    window: int,
    chunk_len: int,
    clip: float | None = None,
    residual: bool = True,
    norm: bool = True,
    read: str = "after",
    velocity: Sequence[np.ndarray] | None = None,
    anchor: Sequence[np.ndarray] | None = None,
    pairs: Sequence[Pair] = (),
    offset: int = 0,
) -> OmegaOracleResult:
    """Reads and writes one head's memory, token after token.

    Args:
        weights: M before the first of these tokens.
        queries: q_t, (seq, d).
        keys: k_t, (seq, d).
        values: v_t, (seq, d).
        decay: alpha_t, (seq, depth).
        momentum: eta_t, (seq, depth).
        learning_rate: theta_t, (seq, depth).
        gamma: gamma_t, (seq, depth), the share of pair t in what later tokens write.
        window: pairs that a token writes, its own included.
        chunk_len: tokens that share one anchor.
        clip: largest norm of one pair's u that is written whole; None writes all of it.
        residual: as in `memory_forward`.
        norm: as in `memory_forward`.
        read: "after" reads M_t at token t, "before" reads M_{t-1}.
        velocity: S before the first token; zeros if not given.
        anchor: where gradients are taken; `weights` if not given.
        pairs: what the tokens before these have left.
        offset: tokens already read since the anchor.

    Returns:
        The reads, and all that the next piece of the stream needs.

    Raises:
        ValueError: for an unknown option.
    """
    if read not in ("before", "after"):
        raise ValueError(f"unknown option: {read=}")
    network = {"residual": residual, "norm": norm}
    m = copy_matrices(weights)
    at = copy_matrices(weights if anchor is None else anchor)
    s = [np.zeros_like(w) for w in m] if velocity is None else copy_matrices(velocity)
    past = list(pairs)

    reads = []
    for t in range(len(keys)):
        if read == "before":
            reads.append(memory_forward(m, queries[t], **network))
        past.append(Pair(keys[t], values[t], gamma[t]))
        past = past[-window:]
        total = [np.zeros_like(w) for w in m]
        for pair in past:
            is_own = pair is past[-1]
            u = surprise(at, pair.key, pair.value, **network)
            factor = clip_factor(u, clip)
            for layer in range(len(m)):
                share = 1.0 if is_own else pair.gamma[layer]
                total[layer] += share * factor * u[layer]
        for layer in range(len(m)):
            s[layer] = momentum[t, layer] * s[layer]
            s[layer] -= learning_rate[t, layer] * total[layer]
            m[layer] = (1 - decay[t, layer]) * m[layer] + s[layer]
        if read == "after":
            reads.append(memory_forward(m, queries[t], **network))
        offset += 1
        if offset == chunk_len:
            at, offset = copy_matrices(m), 0
    pairs_left = past[-(window - 1) :] if window > 1 else []
    return OmegaOracleResult(np.array(reads), m, s, at, pairs_left, offset)
