"""The layers around the memory in plain NumPy float64, with loops over tokens.

Written from the paper and the design alone, importing nothing of the package. Matrices
act on row vectors from the right: x @ W. Attention here is one head, after the
projections to queries, keys and values.
"""

import math
from collections.abc import Sequence

import numpy as np


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow for any finite x."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def silu(x: np.ndarray) -> np.ndarray:
    """Multiplies x by its sigmoid."""
    return x * sigmoid(x)


def rms_norm(x: np.ndarray, scale: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """Divides by the root mean square of the last axis, then multiplies by `scale`."""
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * scale


def unit_norm(x: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """Divides by the L2 norm of the last axis."""
    return x / np.sqrt(np.sum(x**2, axis=-1, keepdims=True) + eps)


def swiglu(
    x: np.ndarray, gate: np.ndarray, up: np.ndarray, down: np.ndarray
) -> np.ndarray:
    """(silu(x gate) * (x up)) down.

    Args:
        x: (..., d_model).
        gate: (d_model, d_hidden).
        up: (d_model, d_hidden).
        down: (d_hidden, d_model).

    Returns:
        An array shaped like x.
    """
    return (silu(x @ gate) * (x @ up)) @ down


def causal_conv(
    x: np.ndarray, kernel: np.ndarray, conv_state: np.ndarray | None = None
) -> np.ndarray:
    """One filter for each channel over the current and earlier tokens.

    Args:
        x: (seq, channels).
        kernel: (kernel_size, channels); the last row multiplies the current token.
        conv_state: the kernel_size - 1 inputs before x, oldest first; zeros if not
            given.

    Returns:
        (seq, channels).
    """
    kernel_size, channels = kernel.shape
    if conv_state is None:
        conv_state = np.zeros((kernel_size - 1, channels))
    # Row t of x is row t + kernel_size - 1 here, so kernel row j meets token
    # t - (kernel_size - 1) + j.
    padded = np.concatenate([conv_state, x])
    out = np.zeros((len(x), channels))
    for token in range(len(x)):
        for row in range(kernel_size):
            out[token] += kernel[row] * padded[token + row]
    return out


def rotate(x: np.ndarray, position: int, base: float = 10_000.0) -> np.ndarray:
    """RoPE of one vector: channel i of the first half turns with i of the second.

    Args:
        x: (d,), d even.
        position: tokens since the origin.
        base: pair i turns by position * base^(-2i/d) radians.

    Returns:
        (d,), of the same length as a vector.
    """
    half = len(x) // 2
    out = np.zeros(len(x))
    for pair in range(half):
        angle = position * base ** (-2 * pair / len(x))
        first, second = x[pair], x[pair + half]
        out[pair] = first * math.cos(angle) - second * math.sin(angle)
        out[pair + half] = second * math.cos(angle) + first * math.sin(angle)
    return out


def attend(
    query: np.ndarray,
    keys: Sequence[np.ndarray],
    values: Sequence[np.ndarray],
    *,
    persistent_query: np.ndarray | None = None,
    persistent_keys: Sequence[np.ndarray] = (),
    persistent_values: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Softmax attention of one query over exactly the given keys and values.

    Args:
        query: (d,).
        keys: at least one (d,) vector.
        values: one (d_value,) vector for each key.
        persistent_query: (d,), the same query without its rotation, which is what the
            persistent keys meet.
        persistent_keys: any number of (d,) vectors, never rotated.
        persistent_values: one (d_value,) vector for each persistent key.

    Returns:
        (d_value,), the weighted mean of the values under one softmax.
    """
    pairs = [(persistent_query, key) for key in persistent_keys]
    pairs += [(query, key) for key in keys]
    values = [*persistent_values, *values]
    scores = np.array([q @ k for q, k in pairs]) / math.sqrt(len(query))
    weights = np.exp(scores - scores.max())
    weights = weights / weights.sum()
    out = np.zeros(len(values[0]))
    for weight, value in zip(weights, values, strict=True):
        out += weight * value
    return out


def sliding_attention(
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    persistent_keys: np.ndarray,
    persistent_values: np.ndarray,
    *,
    window: int,
    base: float = 10_000.0,
) -> np.ndarray:
    """Token i sees every persistent token and tokens max(0, i - window + 1) .. i.

    Args:
        queries: (seq, d), not yet rotated.
        keys: (seq, d), not yet rotated.
        values: (seq, d).
        persistent_keys: (n_persistent, d), never rotated, nor the query that
            meets them; n_persistent may be 0.
        persistent_values: (n_persistent, d).
        window: tokens seen, the token itself included, the persistent ones not.
        base: as in `rotate`; the position is the index in the sequence.

    Returns:
        (seq, d).
    """
    out = []
    for i in range(len(queries)):
        visible = range(max(0, i - window + 1), i + 1)
        attended = attend(
            rotate(queries[i], i, base),
            [rotate(keys[j], j, base) for j in visible],
            [values[j] for j in visible],
            persistent_query=queries[i],
            persistent_keys=persistent_keys,
            persistent_values=persistent_values,
        )
        out.append(attended)
    return np.array(out)


def segment_attention(
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    retrieved_keys: np.ndarray,
    retrieved_values: np.ndarray,
    persistent_keys: np.ndarray,
    persistent_values: np.ndarray,
    *,
    segment_len: int,
    base: float = 10_000.0,
) -> np.ndarray:
    """MAC: token i sees [persistent | h_j | x_j] for segment start <= j <= i.

    Args:
        queries: (seq, d), of the tokens x_i, not yet rotated.
        keys: (seq, d), of the tokens x_j, not yet rotated.
        values: (seq, d), of the tokens x_j.
        retrieved_keys: (seq, d), of the memory's answers h_j, not yet rotated.
        retrieved_values: (seq, d), of the memory's answers h_j.
        persistent_keys: (n_persistent, d), never rotated, nor the query that
            meets them; n_persistent may be 0.
        persistent_values: (n_persistent, d).
        segment_len: tokens in a segment; the last segment may be shorter.
        base: as in `rotate`; x_j and h_j share j's position within its segment.

    Returns:
        (seq, d).
    """
    out = []
    for i in range(len(queries)):
        start = i - i % segment_len
        seen_keys, seen_values = [], []
        for j in range(start, i + 1):
            seen_keys.append(rotate(retrieved_keys[j], j - start, base))
            seen_values.append(retrieved_values[j])
        for j in range(start, i + 1):
            seen_keys.append(rotate(keys[j], j - start, base))
            seen_values.append(values[j])
        attended = attend(
            rotate(queries[i], i - start, base),
            seen_keys,
            seen_values,
            persistent_query=queries[i],
            persistent_keys=persistent_keys,
            persistent_values=persistent_values,
        )
        out.append(attended)
    return np.array(out)
