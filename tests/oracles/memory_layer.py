"""The memory as a layer in plain NumPy: projections, gates, all heads, output.

Parameters are namespaces of arrays, as `tests.oracles.parameters` makes them; options
are those of the config's memory section, as plain values.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.oracles import blocks
from tests.oracles.attention import Parameters, join, linear, split
from tests.oracles.delta import delta_oracle
from tests.oracles.memory import Matrices, memory_forward, memory_oracle

NORM_EPS = 1e-5
Options = Mapping[str, Any]


def norm(p: Parameters, x: np.ndarray) -> np.ndarray:
    """Rows through an `equinox.nn.RMSNorm`."""
    return blocks.rms_norm(x, p.weight, eps=NORM_EPS)


def project(p: Parameters, x: np.ndarray, activation: str = "silu") -> np.ndarray:
    """Linear map, causal convolution from the start of the stream, SiLU if wanted."""
    rows = blocks.causal_conv(linear(p.linear, x), p.conv.kernel)
    return blocks.silu(rows) if activation == "silu" else rows


class MemoryLayer:
    """The memories of a layer, from M_0 on, and the stream that they have read."""

    def __init__(self, p: Parameters, options: Options) -> None:
        self.p, self.options = p, options
        self.n_heads = options["n_heads"]
        self.initial = [
            [layer[head] for layer in p.heads.initial_weights]
            for head in range(self.n_heads)
        ]
        self.weights: list[Matrices] = list(self.initial)
        self.carried: list[dict[str, Any]] = [{} for _ in range(self.n_heads)]
        self.stream = np.zeros((0, p.read_out.projection.weight.shape[1]))

    def write(self, x: np.ndarray) -> np.ndarray:
        """Write rows that follow those before; what the memory answers to each."""
        self.stream = np.concatenate([self.stream, x])
        projections = self.p.heads.projections
        activations = ("silu", "silu", self.options["value_activation"])
        maps = (projections.query, projections.key, projections.value)
        queries, keys, values = (
            split(project(p, self.stream, activation), self.n_heads)
            for p, activation in zip(maps, activations, strict=True)
        )
        if self.options["value_norm"]:
            values = blocks.unit_norm(values) * values.shape[-1] ** 0.5
        if self.options["target"] == "next":
            # The key of the token before, and none before the first.
            keys = np.concatenate([np.zeros_like(keys[:, :1]), keys[:, :-1]], axis=1)
        queries, keys, values = (rows[:, -len(x) :] for rows in (queries, keys, values))
        queries, keys = blocks.unit_norm(queries), blocks.unit_norm(keys)
        reads = [
            self._write_head(head, queries[head], keys[head], values[head], x)
            for head in range(self.n_heads)
        ]
        return self.answer(x, np.array(reads))

    def write_prefix(self, x: np.ndarray) -> None:
        """Read tokens that stand before the sequence, whose first chunk starts anew."""
        if len(x) == 0:
            return
        self.write(x)
        for weights, carried in zip(self.weights, self.carried, strict=True):
            if "anchor" in carried:
                carried.update(anchor=weights, phase=0)

    def retrieve(self, stream: np.ndarray, n_new: int) -> np.ndarray:
        """What the memory as it is answers to the last rows of a stream."""
        queries = split(project(self.p.heads.projections.query, stream), self.n_heads)
        reads = [
            self._read(weights, rows)
            for weights, rows in zip(
                self.weights, blocks.unit_norm(queries[:, -n_new:]), strict=True
            )
        ]
        return self.answer(stream[-n_new:], np.array(reads))

    def answer(self, x: np.ndarray, reads: np.ndarray) -> np.ndarray:
        """Reads (heads, seq, width) to the stream: norm, gate from the input, map."""
        is_open = self.options["gate_start"] == "open"
        offset = 0.0
        for _ in range(100 if is_open else 0):
            offset = 1 + np.exp(-offset)  # ends where SiLU is 1
        gate = blocks.silu(linear(self.p.read_out.gate, x) + offset)
        if self.options["read_norm"]:
            reads = norm(self.p.read_out.norm, reads)
        joined = join(reads)
        return linear(self.p.read_out.projection, joined * gate)

    def _write_head(
        self,
        head: int,
        queries: np.ndarray,
        keys: np.ndarray,
        values: np.ndarray,
        x: np.ndarray,
    ) -> np.ndarray:
        """The reads of one head."""
        options, weights = self.options, self.weights[head]
        if options["off"]:
            return self._read(weights, queries)
        rows = (queries, keys, values)
        if options["rule"] == "delta":
            (matrix,) = weights
            gates = [
                self._gate(name, head, x)[:, 0]
                for name in ("decay", "momentum", "learning_rate")
            ]
            delta = delta_oracle(
                matrix,
                *rows,
                *gates,
                residual=options["residual"],
                read=options["read"],
                **self.carried[head],
            )
            self.weights[head] = [delta.weights]
            self.carried[head] = {"velocity": delta.velocity}
            return delta.reads
        result = memory_oracle(
            weights,
            *rows,
            self._decay(head, x),
            self._gate("momentum", head, x),
            self._gate("learning_rate", head, x),
            chunk_len=options["chunk_len"],
            clip=options["clip"] or None,
            decay_towards=options["decay_towards"],
            initial=self.initial[head],
            read=options["read"],
            **self._network(),
            **self.carried[head],
        )
        self.weights[head] = result.weights
        self.carried[head] = {
            "anchor": result.anchor,
            "surprise_state": result.momentum_state,
            "phase": result.phase,
        }
        return result.reads

    def _decay(self, head: int, x: np.ndarray) -> np.ndarray | Matrices:
        """(seq, depth), or for each layer (seq, d_in)."""
        if self.options["decay"] != "channel":
            return self._gate("decay", head, x)
        widths = [len(matrix) for matrix in self.initial[head]]
        every = self._gate("decay", head, x, n_values=sum(widths))
        return np.split(every, np.cumsum(widths)[:-1], axis=1)

    def _gate(
        self, name: str, head: int, x: np.ndarray, n_values: int | None = None
    ) -> np.ndarray:
        """(seq, depth or n_values); zero where there is no such gate."""
        shape = (len(x), self.options["depth"] if n_values is None else n_values)
        is_missing = {
            "decay": self.options["decay"] == "none",
            "momentum": not self.options["use_momentum"],
            "learning_rate": False,
        }
        assert is_missing[name] == (name not in self.p.heads.projections.gates.linears)
        if is_missing[name]:
            return np.zeros(shape)
        logits = split(
            linear(self.p.heads.projections.gates.linears[name], x), self.n_heads
        )[head]
        return np.broadcast_to(self._largest(name) * blocks.sigmoid(logits), shape)

    def _largest(self, name: str) -> float:
        """Where the range of a gate ends."""
        largest_rate = self.options["max_learning_rate"]
        if name == "learning_rate":
            return largest_rate
        if name == "momentum" and self.options["rule"] == "delta":
            return 1 - largest_rate / 2  # theta / (1 - eta) <= 2
        return 1.0

    def _read(self, weights: Matrices, queries: np.ndarray) -> np.ndarray:
        return np.array(
            [memory_forward(weights, q, **self._network()) for q in queries]
        )

    def _network(self) -> dict[str, Any]:
        return {"residual": self.options["residual"], "norm": self.options["norm"]}
