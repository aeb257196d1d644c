"""MAC as the design states it, in straight-line NumPy over the parts' own oracles.

Weights are taken out of the modules by name; nothing of the package is called.
"""

from typing import Any

import numpy as np

from tests import block_oracles as layers
from tests.oracles.memory import MemoryOracleResult, memory_forward, memory_oracle


def linear(module: Any, x: np.ndarray) -> np.ndarray:
    """Rows through an `equinox.nn.Linear`."""
    y = x @ np.asarray(module.weight).T
    return y if module.bias is None else y + np.asarray(module.bias)


def norm(module: Any, x: np.ndarray) -> np.ndarray:
    """Rows through an `equinox.nn.RMSNorm`."""
    return layers.rms_norm(x, np.asarray(module.weight), eps=module.eps)


def split(x: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of the stream as (heads, seq, width)."""
    return x.reshape(len(x), n_heads, x.shape[1] // n_heads).swapaxes(0, 1)


def join(x: np.ndarray) -> np.ndarray:
    """The inverse of `split`."""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)


def project(module: Any, x: np.ndarray) -> np.ndarray:
    """Linear map, causal convolution from the start of the stream, SiLU."""
    return layers.silu(
        layers.causal_conv(linear(module.linear, x), np.asarray(module.conv.kernel))
    )


def memory_output(memory: Any, x: np.ndarray, reads: np.ndarray) -> np.ndarray:
    """Reads (heads, seq, width) to the stream: norm, gate from the input, map."""
    gate = layers.silu(linear(memory.output_gate, x))
    return linear(memory.output_projection, join(norm(memory.read_norm, reads)) * gate)


class HeadMemories:
    """The memories of all heads of one layer, from M_0 on."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory
        self.initial = [
            [np.asarray(w[head]) for w in memory.initial_weights]
            for head in range(memory.n_heads)
        ]
        self.states: list[MemoryOracleResult | None] = [None] * memory.n_heads
        self.network = {"residual": memory.net.residual, "norm": memory.net.norm}

    def weights(self) -> list[list[np.ndarray]]:
        """The weights of each head now."""
        return [
            start if state is None else state.weights
            for start, state in zip(self.initial, self.states, strict=True)
        ]

    def read_fixed(
        self, weights: list[list[np.ndarray]], queries: np.ndarray
    ) -> np.ndarray:
        """Reads (heads, seq, width) of weights that stay as they are."""
        return np.array(
            [
                [memory_forward(w, q, **self.network) for q in rows]
                for w, rows in zip(weights, queries, strict=True)
            ]
        )

    def write(self, stream: np.ndarray, n_new: int) -> np.ndarray:
        """Write the last `n_new` rows of a stream; their reads of the running memory.

        Args:
            stream: All rows written since the start, the new ones included.
            n_new: How many of them are new.

        Returns:
            (heads, n_new, width).
        """
        memory = self.memory
        queries, keys, values = (
            split(project(part, stream), memory.n_heads)
            for part in (
                memory.query_projection,
                memory.key_projection,
                memory.value_projection,
            )
        )
        queries, keys = layers.unit_norm(queries), layers.unit_norm(keys)
        gates = [self._gate(kind, stream) for kind in ("decay", "momentum", "step")]
        rule, reads = memory.rule, []
        for head, state in enumerate(self.states):
            rows = (queries, keys, values, *gates)
            carried: dict[str, Any] = (
                {}
                if state is None
                else {
                    "anchor": state.anchor,
                    "surprise_state": state.momentum_state,
                    "phase": state.phase,
                }
            )
            state = memory_oracle(
                self.weights()[head],
                *(array[head, -n_new:] for array in rows),
                chunk_len=memory.chunk_len,
                clip=rule.clip or None,
                decay_towards=rule.decay_towards,
                initial=self.initial[head],
                read=rule.read,
                **self.network,
                **carried,
            )
            self.states[head] = state
            reads.append(state.reads)
        return np.array(reads)

    def _gate(self, kind: str, stream: np.ndarray) -> np.ndarray:
        """(heads, seq, depth)."""
        gates = self.memory.gates
        shape = (gates.n_heads, len(stream), gates.depth)
        module = getattr(gates, kind)
        if module is None:
            return np.zeros(shape)
        largest = gates.max_step if kind == "step" else 1.0
        values = largest * layers.sigmoid(linear(module, stream))
        return np.broadcast_to(split(values, gates.n_heads), shape)


def segment_attention(
    attention: Any, x: np.ndarray, retrieved: np.ndarray
) -> np.ndarray:
    """One segment of `SegmentAttention`, head by head."""
    heads = attention.heads
    prefix = np.asarray(heads.persistent_tokens)

    def rows(module: Any, x: np.ndarray) -> np.ndarray:
        return split(linear(module, x), heads.n_heads)

    columns = [
        rows(heads.query_projection, x),
        rows(heads.key_projection, x),
        rows(heads.value_projection, x),
        rows(heads.key_projection, retrieved),
        rows(heads.value_projection, retrieved),
        rows(heads.key_projection, prefix),
        rows(heads.value_projection, prefix),
    ]
    y = [
        layers.segment_attention(
            *one_head, segment_len=attention.segment_len, base=heads.rope_base
        )
        for one_head in zip(*columns, strict=True)
    ]
    return linear(heads.output_projection, join(np.array(y)))


def gated(gate: Any, y: np.ndarray, m: np.ndarray) -> np.ndarray:
    """The three forms of joining attention output and memory read."""
    if gate.kind == "add":
        return y + layers.sigmoid(np.asarray(gate.gate)) * m
    y, m = norm(gate.attention_norm, y), norm(gate.memory_norm, m)
    if gate.kind == "multiply":
        return y * layers.sigmoid(m)
    weight = layers.sigmoid(np.asarray(gate.gate))
    return (1 - weight) * y + weight * m


def mac_oracle(mixer: Any, x: np.ndarray) -> np.ndarray:
    """Everything that a `MemoryAsContext` adds to a stream, from its first token.

    Args:
        mixer: The module whose weights are used.
        x: The normalised stream, (seq, d_model).

    Returns:
        (seq, d_model).
    """
    memory, segment_len = mixer.memory, mixer.segment_len
    memories = HeadMemories(memory)
    # The retrieval's convolution runs over x, the write's over the written stream.
    queries = split(project(memory.query_projection, x), memory.n_heads)
    queries = layers.unit_norm(queries)
    written = np.zeros((0, x.shape[1]))
    out = []
    for start in range(0, len(x), segment_len):
        rows = slice(start, start + segment_len)
        at_start = memories.read_fixed(memories.weights(), queries[:, rows])
        retrieved = memory_output(memory, x[rows], at_start)
        y = segment_attention(mixer.attention, x[rows], retrieved)
        new = norm(mixer.write_norm, x[rows] + y)
        written = np.concatenate([written, new])
        reads = memories.write(written, len(new))
        out.append(gated(mixer.gate, y, memory_output(memory, new, reads)))
    return np.concatenate(out)


def language_model_oracle(model: Any, blocks: list[Any], tokens: Any) -> np.ndarray:
    """Logits of a MAC model.

    Args:
        model: The module whose embedding, norm and head are used.
        blocks: Its blocks, first to last.
        tokens: Token ids, (seq,).

    Returns:
        (seq, vocab).
    """
    embedding = np.asarray(model.embedding)
    x = embedding[np.asarray(tokens)]
    for block in blocks:
        x = x + mac_oracle(block.mixer, norm(block.mixer_norm, x))
        feed = block.feedforward
        x = x + layers.swiglu(
            norm(block.feedforward_norm, x),
            np.asarray(feed.gate_projection.weight).T,
            np.asarray(feed.in_projection.weight).T,
            np.asarray(feed.out_projection.weight).T,
        )
    x = norm(model.norm, x)
    return x @ embedding.T if model.head is None else linear(model.head, x)
