"""Gated DeltaNet of one head in plain NumPy float64, as its public layers define it.

    S <- g_t S                  decay first
    e  = v_t - k_t S            then the error
    S <- S + beta_t k_t^T e
    o_t = q_t S d_k^(-1/2)

with S zero before the first token.
"""

import numpy as np


def gated_delta_oracle(
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    kept: np.ndarray,
    beta: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Reads and writes a sequence.

    Args:
        queries: q_t, (seq, d_k).
        keys: k_t, (seq, d_k).
        values: v_t, (seq, d_v).
        kept: g_t, (seq,), in (0, 1].
        beta: beta_t, (seq,).

    Returns:
        o_t, (seq, d_v), and S after the last token, (d_k, d_v).
    """
    d_k = keys.shape[1]
    state = np.zeros((d_k, values.shape[1]), np.float64)
    reads = []
    for t in range(len(keys)):
        state = kept[t] * state
        error = values[t] - keys[t] @ state
        state = state + beta[t] * np.outer(keys[t], error)
        reads.append(queries[t] @ state / np.sqrt(d_k))
    return np.array(reads), state
