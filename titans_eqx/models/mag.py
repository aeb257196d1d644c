"""MAG, memory as gate (Titans, section 4.2, Eqs. 26 to 28).

    y = SWA([p | x])      sliding window with an always visible prefix    (27)
    m = M([p | x])        the memory reads the same tokens, in parallel
    o = gate(y, m)                                                        (28)

Reading: whether the persistent tokens `p` also pass through the memory is left open;
`attention.persistent_in_memory` decides, and by default they do not.
"""

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.attention.sliding import SlidingAttention, WindowCache
from titans_eqx.config import ModelConfig
from titans_eqx.memory.layer import NeuralMemory, NeuralMemoryState
from titans_eqx.models.mixer import AbstractMemoryMixer
from titans_eqx.models.attention import build_sliding_attention
from titans_eqx.models.gate import StreamGate


class MAGState(eqx.Module):
    """Where a MAG layer stands in its stream."""

    memory: NeuralMemoryState
    window: WindowCache


class MemoryAsGate(AbstractMemoryMixer[MAGState]):
    """The MAG mixer."""

    memory: NeuralMemory
    attention: SlidingAttention
    gate: StreamGate

    persistent_in_memory: bool = eqx.field(static=True)

    def __init__(self, config: ModelConfig, *, key: PRNGKeyArray) -> None:
        """Build the mixer of one layer.

        Args:
            config: Sizes and options of the model.
            key: Random key.
        """
        memory_key, attention_key = jr.split(key)
        self.memory = NeuralMemory(config.d_model, config.memory, key=memory_key)
        self.attention = build_sliding_attention(config, key=attention_key)
        self.gate = StreamGate(config.d_model, config.gate)
        self.persistent_in_memory = config.attention.persistent_in_memory

    def init_state(self) -> MAGState:
        """A fresh memory, which may have read the persistent tokens; no window."""
        prefix = self.attention.heads.persistent_tokens
        return MAGState(
            memory=self.memory.init_state(
                prefix if self.persistent_in_memory else None
            ),
            window=self.attention.init_state(),
        )

    def __call__(
        self, x: Float[Array, "seq d_model"], state: MAGState | None
    ) -> tuple[Float[Array, "seq d_model"], MAGState]:
        """Mix a piece of a sequence; see `AbstractMixer.__call__`."""
        if state is None:
            m, memory = self.memory.start(x, self.init_state().memory)
            y, window = self.attention(x)
        else:
            m, memory = self.memory(x, state.memory)
            y, window = self.attention(x, state.window)
        return jax.vmap(self.gate)(y, m), MAGState(memory, window)

    def step(
        self, x: Float[Array, " d_model"], state: MAGState
    ) -> tuple[Float[Array, " d_model"], MAGState]:
        """Mix one token; see `AbstractMixer.step`."""
        m, memory = self.memory.step(x, state.memory)
        y, window = self.attention.step(x, state.window)
        return self.gate(y, m), MAGState(memory, window)

    def memory_view(
        self, x: Float[Array, " d_model"], state: MAGState
    ) -> tuple[Float[Array, " d_model"], NeuralMemoryState]:
        """See `AbstractMemoryMixer.memory_view`."""
        return x, state.memory
