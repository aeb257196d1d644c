"""The delta rule of one head in plain NumPy float64, one token at a time.

Written from its definition alone and importing nothing of the package.
"""

from typing import NamedTuple

import numpy as np


class DeltaOracleResult(NamedTuple):
    """What `delta_oracle` returns; unpacks as a tuple."""

    reads: np.ndarray  # (seq, d), y_t
    weights: np.ndarray  # (d, d), M after the last token
    velocity: np.ndarray  # (d, d), S after the last token


def delta_oracle(
    weights: np.ndarray,
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    decay: np.ndarray,
    momentum: np.ndarray,
    learning_rate: np.ndarray,
    *,
    velocity: np.ndarray | None = None,
    residual: bool = True,
    read: str = "after",
    error_after_decay: bool = False,
) -> DeltaOracleResult:
    """Reads and writes one linear memory, its errors taken at the token's own weights.

    Args:
        weights: M before the first of these tokens, (d, d).
        queries: q_t, (seq, d).
        keys: k_t, (seq, d).
        values: v_t, (seq, d).
        decay: alpha_t, (seq,).
        momentum: eta_t, (seq,).
        learning_rate: theta_t, (seq,).
        velocity: S before the first token; zeros if not given.
        residual: the memory answers x + x M, not x M.
        read: "after" reads M_t at token t, "before" reads M_{t-1}.
        error_after_decay: errors are taken at (1 - alpha_t) M_{t-1}.

    Returns:
        The reads, and all that the next piece of the stream needs.

    Raises:
        ValueError: for an unknown option.
    """
    if read not in ("before", "after"):
        raise ValueError(f"unknown option: {read=}")
    m = np.array(weights, np.float64)
    s = np.zeros_like(m) if velocity is None else np.array(velocity, np.float64)

    def answer(x: np.ndarray) -> np.ndarray:
        return x + x @ m if residual else x @ m

    reads = []
    for token in range(len(keys)):
        if read == "before":
            reads.append(answer(queries[token]))
        if error_after_decay:
            m = (1 - decay[token]) * m
        error = answer(keys[token]) - values[token]
        if not error_after_decay:
            m = (1 - decay[token]) * m
        s = momentum[token] * s - learning_rate[token] * np.outer(keys[token], error)
        m = m + s
        if read == "after":
            reads.append(answer(queries[token]))
    return DeltaOracleResult(np.array(reads).reshape(-1, queries.shape[1]), m, s)
