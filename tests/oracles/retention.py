"""Retention by maps of the weights in plain NumPy float64, token by token (MIRAS).

`retention_oracle` has the map at the ends of chunks. The other two are the published
rules, which map after every token, of a linear memory `M(x) = x W`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tests.oracles.memory import (
    Matrices,
    clip_factor,
    copy_matrices,
    memory_forward,
    surprise,
)

Retention = Callable[[np.ndarray, int], tuple[np.ndarray, float]]
"""From A at a chunk's end and its tokens to A and the scale of the next chunk."""


def soft_threshold(a: np.ndarray, threshold: float) -> np.ndarray:
    """Every number that much nearer to zero, and not beyond."""
    return np.sign(a) * np.maximum(np.abs(a) - threshold, 0)


def q_norm(a: np.ndarray, q: float) -> float:
    """Of all numbers of a matrix."""
    return float(np.sum(np.abs(a) ** q) ** (1 / q))


def elastic_net(gamma: float) -> Retention:
    """A soft threshold for each token of the chunk, all at once."""
    return lambda a, n_tokens: (soft_threshold(a, gamma * n_tokens), 1.0)


def norm_retention(q: float) -> Retention:
    """Division by a power of the norm, which counts as 1 if it is less."""
    return lambda a, n_tokens: (a, 1 / max(q_norm(a, q), 1.0) ** (q - 2))


class RetentionOracleResult(NamedTuple):
    """What `retention_oracle` returns."""

    reads: np.ndarray  # (seq, d), y_t
    accumulated: Matrices  # A after the last token
    velocity: Matrices  # S after the last token
    anchor: Matrices  # weights at the end of the last whole chunk
    scale: np.ndarray  # (depth,)
    offset: int  # tokens read since the anchor, in [0, chunk_len)


def retention_oracle(
    accumulated: Sequence[np.ndarray],
    scale: np.ndarray,
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    decay: np.ndarray,
    momentum: np.ndarray,
    learning_rate: np.ndarray,
    *,
    retention: Retention,
    chunk_len: int,
    velocity: Sequence[np.ndarray],
    anchor: Sequence[np.ndarray],
    offset: int,
    target: Sequence[np.ndarray] | None = None,
    clip: float | None = None,
    residual: bool = True,
    norm: bool = True,
    read: str = "after",
) -> RetentionOracleResult:
    """Reads and writes one head's memory, whose weights are `scale * accumulated`.

    Args:
        accumulated: A before the first of these tokens.
        scale: of this chunk, (depth,).
        queries: q_t, (seq, d).
        keys: k_t, (seq, d).
        values: v_t, (seq, d).
        decay: alpha_t, (seq, depth).
        momentum: eta_t, (seq, depth).
        learning_rate: theta_t, (seq, depth).
        retention: the map at the end of a chunk.
        chunk_len: tokens that share one anchor.
        velocity: S before the first token.
        anchor: where gradients are taken.
        offset: tokens already read since the anchor.
        target: where A is forgotten to; zero if not given.
        clip: largest norm of u_t that is written whole; None writes all of it.
        residual: as in `memory_forward`.
        norm: as in `memory_forward`.
        read: "after" reads at token t after its write, "before" before it.

    Returns:
        The reads, and all that the next piece of the stream needs.
    """
    network = {"residual": residual, "norm": norm}
    a, s, at = map(copy_matrices, (accumulated, velocity, anchor))
    scale = np.array(scale, np.float64)

    def answer(query: np.ndarray) -> np.ndarray:
        weights = [c * x for c, x in zip(scale, a, strict=True)]
        return memory_forward(weights, query, **network)

    reads = []
    for t in range(len(keys)):
        if read == "before":
            reads.append(answer(queries[t]))
        u = surprise(at, keys[t], values[t], **network)
        factor = clip_factor(u, clip)
        for layer in range(len(a)):
            s[layer] = momentum[t, layer] * s[layer]
            s[layer] -= learning_rate[t, layer] * factor * u[layer]
            a[layer] = (1 - decay[t, layer]) * a[layer] + s[layer]
            if target is not None:
                a[layer] += decay[t, layer] * target[layer]
        if read == "after":
            reads.append(answer(queries[t]))
        offset += 1
        if offset == chunk_len:
            for layer in range(len(a)):
                a[layer], scale[layer] = retention(a[layer], chunk_len)
            at = [c * x for c, x in zip(scale, a, strict=True)]
            offset = 0
    return RetentionOracleResult(np.array(reads), a, s, at, scale, offset)


def moneta_oracle(
    accumulated: np.ndarray,
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    decay: np.ndarray,
    learning_rate: np.ndarray,
    *,
    p: float,
    q: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Moneta: `A_t = a_t A_{t-1} - eta_t grad |k_t W_{t-1} - v_t|_p^p`.

    `W_t = A_t / |A_t|_q^(q-2)`.

    Args:
        accumulated: A before the first token, (d, d).
        queries: q_t, (seq, d).
        keys: k_t, (seq, d).
        values: v_t, (seq, d).
        decay: 1 - a_t, (seq,).
        learning_rate: eta_t, (seq,).
        p: exponent of the loss; its sign and absolute value are the smooth ones.
        q: of the norm.

    Returns:
        The reads `q_t W_{t-1}`, and A after every token.
    """
    a = np.array(accumulated, np.float64)
    reads, all_a = [], []
    for t in range(len(keys)):
        w = a / q_norm(a, q) ** (q - 2)
        e = keys[t] @ w - values[t]
        gradient = p * np.tanh(10 * e) * np.sqrt(e**2 + 1e-6) ** (p - 1)
        reads.append(queries[t] @ w)
        a = (1 - decay[t]) * a - learning_rate[t] * np.outer(keys[t], gradient)
        all_a.append(a)
    return np.array(reads), np.array(all_a)


def elastic_net_oracle(
    weights: np.ndarray,
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    decay: np.ndarray,
    learning_rate: np.ndarray,
    *,
    gamma: float,
) -> tuple[np.ndarray, np.ndarray]:
    """`W_t = soft_gamma(lambda_t W_{t-1} - zeta_t grad 1/2 |W_{t-1}(k) - v|^2)`.

    Args:
        weights: W before the first token, (d, d).
        queries: q_t, (seq, d).
        keys: k_t, (seq, d).
        values: v_t, (seq, d).
        decay: 1 - lambda_t, (seq,).
        learning_rate: zeta_t, (seq,).
        gamma: the threshold.

    Returns:
        The reads `q_t W_{t-1}`, and W after the last token.
    """
    w = np.array(weights, np.float64)
    reads = []
    for t in range(len(keys)):
        gradient = np.outer(keys[t], keys[t] @ w - values[t])
        reads.append(queries[t] @ w)
        w = (1 - decay[t]) * w - learning_rate[t] * gradient
        w = soft_threshold(w, gamma)
    return np.array(reads), w
