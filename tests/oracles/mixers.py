"""Every block, and the language model, in plain NumPy over the parts' own oracles.

A mixer gets its parameters (namespaces of arrays, as `tests.oracles.parameters` makes
them), the config of the model as plain values, and the normalised stream from its first
token on, (seq, d_model).
"""

import numpy as np

from tests.oracles import blocks
from tests.oracles.attention import (
    Parameters,
    linear,
    segment_attention,
    sliding_attention,
)
from tests.oracles.memory_layer import MemoryLayer, Options, norm


def gated(p: Parameters, kind: str, y: np.ndarray, m: np.ndarray) -> np.ndarray:
    """The three ways in which a memory read joins an attention output."""
    if kind == "add":
        return y + blocks.sigmoid(p.gate) * m
    y, m = norm(p.attention_norm, y), norm(p.memory_norm, m)
    if kind == "multiply":
        return y * blocks.sigmoid(m)
    weight = blocks.sigmoid(p.gate)
    return (1 - weight) * y + weight * m


def mac(p: Parameters, options: Options, x: np.ndarray) -> np.ndarray:
    """Memory as context: retrieve, attend, write and read, segment after segment."""
    attention = options["attention"]
    memory = MemoryLayer(p.memory, options["memory"])
    out = []
    for start in range(0, len(x), attention["segment_len"]):
        segment = x[start : start + attention["segment_len"]]
        # The retrieval's convolution runs over x, the write's over the written stream.
        so_far = x[: start + len(segment)]
        retrieved = memory.retrieve(so_far, len(segment))
        y = segment_attention(
            p.attention,
            segment,
            retrieved,
            x[:start],
            n_heads=attention["n_heads"],
            base=attention["rope_base"],
        )
        m = memory.write(norm(p.write_norm, segment + y))
        out.append(gated(p.gate, options["gate"], y, m))
    return np.concatenate(out)


def mag(p: Parameters, options: Options, x: np.ndarray) -> np.ndarray:
    """Memory as gate: window and memory read the same stream."""
    m = hybrid_memory(p, options).write(x)
    return gated(p.gate, options["gate"], window_attention(p, options, x), m)


def mal(p: Parameters, options: Options, x: np.ndarray) -> np.ndarray:
    """Memory as layer: the window reads the stream after the memory."""
    m = hybrid_memory(p, options).write(x)
    return m + window_attention(p, options, norm(p.attention_norm, x + m))


def lmm(p: Parameters, options: Options, x: np.ndarray) -> np.ndarray:
    """The memory alone."""
    return MemoryLayer(p.memory, options["memory"]).write(x)


def window_attention(p: Parameters, options: Options, x: np.ndarray) -> np.ndarray:
    """Attention over a window, all that a block without memory has."""
    attention = options["attention"]
    return sliding_attention(
        p.attention,
        x,
        n_heads=attention["n_heads"],
        window=attention["window"],
        base=attention["rope_base"],
    )


MIXERS = {
    "mac": mac,
    "mag": mag,
    "mal": mal,
    "lmm": lmm,
    "transformer": window_attention,
}


def hybrid_memory(p: Parameters, options: Options) -> MemoryLayer:
    """A fresh memory, which by option has read the persistent tokens."""
    memory = MemoryLayer(p.memory, options["memory"])
    if options["attention"]["persistent_in_memory"]:
        memory.write_prefix(p.attention.heads.persistent_tokens)
    return memory


def block(name: str, p: Parameters, options: Options, x: np.ndarray) -> np.ndarray:
    """The stream after a block."""
    x = x + MIXERS[name](p.mixer, options, norm(p.mixer_norm, x))
    feed = p.feedforward
    return x + blocks.swiglu(
        norm(p.feedforward_norm, x),
        feed.gate_projection.weight.T,
        feed.in_projection.weight.T,
        feed.out_projection.weight.T,
    )


def language_model(
    p: Parameters,
    layers: list[tuple[str, Parameters]],
    options: Options,
    tokens: np.ndarray,
) -> np.ndarray:
    """Logits (seq, vocab).

    Args:
        p: Parameters of the model: its embedding, last norm and head are used.
        layers: Name and parameters of each block, first to last.
        options: The config of the model, as plain values.
        tokens: Token ids, (seq,).
    """
    x = p.embedding[tokens]
    for name, parameters in layers:
        x = block(name, parameters, options, x)
    x = norm(p.backbone.norm, x)
    return x @ p.embedding.T if p.head is None else linear(p.head, x)
