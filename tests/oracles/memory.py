"""The Titans rule of one head in plain NumPy float64, one token at a time.

Written from the paper alone and importing nothing of the package, so that an error
shared by the package's own two forms still shows. Clear beats fast: every weight matrix
of every token is built. A memory is a list of matrices; layer l maps a row vector x to
x @ W[l].
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Matrices = list[np.ndarray]

LAYER_NORM_EPS = 1e-5


class MemoryOracleResult(NamedTuple):
    """What `memory_oracle` returns; unpacks as a tuple."""

    reads: np.ndarray  # (seq, d), y_t
    weights: Matrices  # M after the last token
    momentum_state: Matrices  # S after the last token
    anchor: Matrices  # weights at the end of the last whole chunk
    phase: int  # tokens read since the anchor, in [0, chunk_len)


def copy_matrices(matrices: Sequence[np.ndarray]) -> Matrices:
    """Copies, as float64."""
    return [np.array(matrix, dtype=np.float64) for matrix in matrices]


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """GELU by its tanh approximation."""
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + np.tanh(inner))


def gelu_tanh_slope(x: np.ndarray) -> np.ndarray:
    """Derivative of `gelu_tanh`."""
    scale = math.sqrt(2 / math.pi)
    tanh = np.tanh(scale * (x + 0.044715 * x**3))
    inner_slope = scale * (1 + 3 * 0.044715 * x**2)
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * inner_slope


def gelu_exact(x: np.ndarray) -> np.ndarray:
    """GELU: x times the standard normal distribution function at x."""
    return x * _normal_below(x)


def gelu_exact_slope(x: np.ndarray) -> np.ndarray:
    """Derivative of `gelu_exact`."""
    density = np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    return _normal_below(x) + x * density


def _normal_below(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x])


GELUS = {
    "tanh": (gelu_tanh, gelu_tanh_slope),
    "exact": (gelu_exact, gelu_exact_slope),
}


def layer_norm(x: np.ndarray) -> np.ndarray:
    """Zero mean and unit (biased) variance; no parameters."""
    centred = x - x.mean()
    return centred / math.sqrt(np.mean(centred**2) + LAYER_NORM_EPS)


def layer_norm_backward(x: np.ndarray, output_gradient: np.ndarray) -> np.ndarray:
    """Gradient with respect to x, given the gradient at `layer_norm(x)`."""
    centred = x - x.mean()
    deviation = math.sqrt(np.mean(centred**2) + LAYER_NORM_EPS)
    normed = centred / deviation
    along = np.mean(output_gradient * normed)
    return (output_gradient - output_gradient.mean() - normed * along) / deviation


def memory_forward(
    weights: Sequence[np.ndarray],
    x: np.ndarray,
    *,
    residual: bool = True,
    norm: bool = True,
    gelu: str = "tanh",
) -> np.ndarray:
    """M(x): the layers with GELU between, then the two optional wrappers.

    Args:
        weights: one (d_in, d_out) matrix for each layer.
        x: one input, (d,).
        residual: add x to the result.
        norm: put the last layer's output through `layer_norm`.
        gelu: "tanh" or "exact".

    Returns:
        x + LN(f(x)) with both wrappers, f(x) with none.
    """
    activation, _ = GELUS[gelu]
    hidden = x
    for layer, matrix in enumerate(weights):
        hidden = hidden @ matrix
        if layer < len(weights) - 1:
            hidden = activation(hidden)
    if norm:
        hidden = layer_norm(hidden)
    return x + hidden if residual else hidden


def surprise_loss(
    weights: Sequence[np.ndarray], key: np.ndarray, value: np.ndarray, **network
) -> float:
    """Half the squared distance from M(key) to value (equation 12, halved)."""
    error = memory_forward(weights, key, **network) - value
    return 0.5 * float(np.sum(error**2))


def surprise(
    weights: Sequence[np.ndarray],
    key: np.ndarray,
    value: np.ndarray,
    *,
    residual: bool = True,
    norm: bool = True,
    gelu: str = "tanh",
) -> Matrices:
    """u: the gradient of `surprise_loss` for each matrix, backpropagated by hand.

    Args:
        weights: where the gradient is taken.
        key: k_t, (d,).
        value: v_t, (d,).
        residual: as in `memory_forward`.
        norm: as in `memory_forward`.
        gelu: as in `memory_forward`.

    Returns:
        One matrix for each layer, shaped like `weights`.
    """
    activation, slope = GELUS[gelu]
    layer_inputs, layer_outputs = [], []
    hidden = key
    for layer, matrix in enumerate(weights):
        layer_inputs.append(hidden)
        output = hidden @ matrix
        layer_outputs.append(output)
        hidden = activation(output) if layer < len(weights) - 1 else output

    result = layer_norm(hidden) if norm else hidden
    if residual:
        result = key + result

    gradient = result - value
    if norm:
        gradient = layer_norm_backward(hidden, gradient)
    gradients: Matrices = []
    for layer in reversed(range(len(weights))):
        if layer < len(weights) - 1:
            gradient = gradient * slope(layer_outputs[layer])
        gradients.insert(0, np.outer(layer_inputs[layer], gradient))
        gradient = weights[layer] @ gradient
    return gradients


def clip_factor(gradients: Sequence[np.ndarray], clip: float | None) -> float:
    """min(1, clip / norm), the norm taken over all matrices together."""
    total = math.sqrt(sum(float(np.sum(matrix**2)) for matrix in gradients))
    if clip is None or total <= clip:
        return 1.0
    return clip / total


def memory_oracle(
    weights0: Sequence[np.ndarray],
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    decay: np.ndarray | Matrices,
    momentum: np.ndarray,
    step: np.ndarray,
    *,
    chunk_len: int,
    clip: float | None = None,
    residual: bool = True,
    norm: bool = True,
    decay_towards: str = "zero",
    initial: Sequence[np.ndarray] | None = None,
    anchor: Sequence[np.ndarray] | None = None,
    surprise_state: Sequence[np.ndarray] | None = None,
    phase: int = 0,
    read: str = "after",
    gelu: str = "tanh",
) -> MemoryOracleResult:
    """Reads and writes one head's memory, token after token.

    Args:
        weights0: the weights before the first of these tokens.
        queries: q_t, (seq, d).
        keys: k_t, (seq, d).
        values: v_t, (seq, d).
        decay: alpha_t, (seq, depth); or a list with, for each layer, a (seq, d_in)
            array that decays each row (input channel) of its matrix at its own rate.
        momentum: eta_t, (seq, depth).
        step: theta_t, (seq, depth).
        chunk_len: tokens that share one anchor.
        clip: largest norm of u_t that is written whole; None writes all of it.
        residual: as in `memory_forward`.
        norm: as in `memory_forward`.
        decay_towards: "zero" or "initial".
        initial: M_0, where "initial" pulls; `weights0` if not given.
        anchor: where gradients are taken; `weights0` if not given.
        surprise_state: S before the first token; zeros if not given.
        phase: tokens already read since the anchor, in [0, chunk_len).
        read: "after" reads M_t at token t, "before" reads M_{t-1}.
        gelu: as in `memory_forward`.

    Returns:
        The reads, and all that the next piece of the stream needs.

    Raises:
        ValueError: for an unknown option, a phase outside the chunk, or a phase other
            than 0 without the anchor it counts from.
    """
    if decay_towards not in ("zero", "initial") or read not in ("before", "after"):
        raise ValueError(f"unknown option: {decay_towards=}, {read=}")
    if not 0 <= phase < chunk_len or (phase > 0 and anchor is None):
        raise ValueError(f"{phase=} needs an anchor and must be below {chunk_len=}")

    network: dict[str, Any] = {"residual": residual, "norm": norm, "gelu": gelu}
    queries, keys, values, momentum, step = copy_matrices(
        [queries, keys, values, momentum, step]
    )
    weights = copy_matrices(weights0)
    target = copy_matrices(weights0 if initial is None else initial)
    anchor_weights = copy_matrices(weights0 if anchor is None else anchor)
    if surprise_state is None:
        past_surprise = [np.zeros_like(matrix) for matrix in weights]
    else:
        past_surprise = copy_matrices(surprise_state)

    reads = []
    for token in range(len(keys)):
        if read == "before":
            reads.append(memory_forward(weights, queries[token], **network))

        gradients = surprise(anchor_weights, keys[token], values[token], **network)
        factor = clip_factor(gradients, clip)
        for layer, gradient in enumerate(gradients):
            eta, theta = momentum[token, layer], step[token, layer] * factor
            past_surprise[layer] = eta * past_surprise[layer] - theta * gradient

            if isinstance(decay, list):
                alpha = np.asarray(decay[layer], np.float64)[token][:, None]
            else:
                alpha = np.float64(decay[token, layer])
            weights[layer] = (1 - alpha) * weights[layer] + past_surprise[layer]
            if decay_towards == "initial":
                weights[layer] = weights[layer] + alpha * target[layer]

        if read == "after":
            reads.append(memory_forward(weights, queries[token], **network))

        phase += 1
        if phase == chunk_len:
            anchor_weights, phase = copy_matrices(weights), 0

    width = queries.shape[1]
    return MemoryOracleResult(
        np.array(reads).reshape(-1, width),
        weights,
        past_surprise,
        anchor_weights,
        phase,
    )
