"""The neural memory as a layer: projections in, several memories, projection out."""

from typing import Literal

import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.axes import HeadWeights
from titans_eqx.config import MemoryConfig
from titans_eqx.config.memory_check import check_memory
from titans_eqx.memory.build import build_net, build_rule, heads_options
from titans_eqx.memory.head_axis import HEAD_AXIS
from titans_eqx.memory.heads import MemoryHeads, NeuralMemoryState
from titans_eqx.memory.memory import AbstractMemory, MemoryStats
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.read_out import ReadOut
from titans_eqx.memory.rule import AbstractRule
from titans_eqx.nn.conv import Activation, KernelStart
from titans_eqx.nn.documents import Documents
from titans_eqx.nn.padding import Padding


class NeuralMemory(AbstractMemory[NeuralMemoryState]):
    """A sequence layer whose memory is learned while it reads."""

    heads: MemoryHeads
    read_out: ReadOut

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int,
        net: AbstractMemoryNet,
        rule: AbstractRule,
        kernel_size: int = 4,
        share_gates: bool = False,
        target: Literal["same", "next"] = "same",
        initial_output: Literal["random", "zero"] = "random",
        key_start: KernelStart = "token",
        query_start: Literal["random", "keys"] = "random",
        value_activation: Activation = "silu",
        value_norm: bool = False,
        read_norm: bool = True,
        gate_start: Literal["random", "open"] = "random",
        block_len: int | None = None,
        key: PRNGKeyArray,
    ) -> None:
        """Build the layer; see `MemoryHeads` for arguments and errors.

        `read_norm` and `gate_start` are those of `ReadOut`.
        """
        heads_key, read_key = jr.split(key)
        self.heads = MemoryHeads(
            d_model,
            n_heads=n_heads,
            net=net,
            rule=rule,
            kernel_size=kernel_size,
            share_gates=share_gates,
            target=target,
            initial_output=initial_output,
            key_start=key_start,
            query_start=query_start,
            value_activation=value_activation,
            value_norm=value_norm,
            block_len=block_len,
            key=heads_key,
        )
        self.read_out = ReadOut(
            d_model, n_heads, norm=read_norm, gate_start=gate_start, key=read_key
        )

    @classmethod
    def from_config(
        cls, d_model: int, config: MemoryConfig, *, key: PRNGKeyArray
    ) -> "NeuralMemory":
        """The layer that a config describes, with `MemoryNet` and one of our rules.

        Raises:
            ValueError: If keys do not go together, or the config asks for local
                memories too.
        """
        check_memory(config)
        if config.local.chunk_lens:
            raise ValueError(
                "a NeuralMemory has no local memories, got local.chunk_lens="
                f"{config.local.chunk_lens}. Use HierarchicalMemory.from_config."
            )
        d = max(1, d_model // config.n_heads)
        return cls(
            d_model,
            n_heads=config.n_heads,
            net=build_net(d, config),
            rule=build_rule(d, config, chunk_len=config.chunk_len, off=config.off),
            **heads_options(config),
            read_norm=config.read_norm,
            gate_start=config.gate_start,
            block_len=config.unit,
            key=key,
        )

    @property
    def chunk_len(self) -> int:
        """See `AbstractMemory.chunk_len`: the block that the heads take in at once."""
        return self.heads.block_len

    def init_state(
        self, prefix: Float[Array, "n_persistent d_model"] | None = None
    ) -> NeuralMemoryState:
        """See `AbstractMemory.init_state`."""
        return self.heads.init_state(prefix)

    def __call__(
        self,
        x: Float[Array, "seq d_model"],
        state: NeuralMemoryState | None = None,
        padding: Padding | None = None,
    ) -> tuple[Float[Array, "seq d_model"], NeuralMemoryState]:
        """See `AbstractMemory.__call__`; a fresh sequence needs no aligning."""
        if state is None and padding is None:
            reads, state = self.heads.read_sequence(x, self.init_state())
        else:
            state = self.init_state() if state is None else state
            reads, state = self.heads(x, state, padding)
        return self.read_out(x, reads), state

    def read_documents(
        self,
        x: Float[Array, "seq d_model"],
        documents: Documents,
        fresh: NeuralMemoryState,
        state: NeuralMemoryState | None = None,
    ) -> tuple[Float[Array, "seq d_model"], NeuralMemoryState]:
        """See `AbstractMemory.read_documents`."""
        reads, state = self.heads.read_documents(x, documents, fresh, state)
        return self.read_out(x, reads), state

    def step(
        self, x: Float[Array, " d_model"], state: NeuralMemoryState
    ) -> tuple[Float[Array, " d_model"], NeuralMemoryState]:
        """See `AbstractMemory.step`."""
        reads, state = self.heads.step(x, state)
        return self.read_out(x[None], reads[None])[0], state

    def snapshot(self, state: NeuralMemoryState) -> HeadWeights:
        """See `AbstractMemory.snapshot`: the fast weights."""
        return state.heads.weights

    def init_query_state(self) -> Float[Array, "conv_state_len d_model"]:
        """See `AbstractMemory.init_query_state`: of the query convolution."""
        return self.heads.projections.query.conv.init_state()

    def retrieve(
        self,
        x: Float[Array, "positions d_model"],
        snapshot: HeadWeights,
        query_state: Float[Array, "conv_state_len d_model"],
        padding: Padding,
    ) -> tuple[
        Float[Array, "positions d_model"], Float[Array, "conv_state_len d_model"]
    ]:
        """See `AbstractMemory.retrieve`."""
        queries, query_state = self.heads.projections.queries(x, query_state, padding)
        over_heads = jax.vmap(self.heads.net, (0, HEAD_AXIS), HEAD_AXIS)
        return self.read_out(x, over_heads(snapshot, queries)), query_state

    def probe(
        self, x: Float[Array, " d_model"], state: NeuralMemoryState
    ) -> MemoryStats:
        """See `AbstractMemory.probe`."""
        return self.heads.probe(x, state)
