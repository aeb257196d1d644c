"""MAL, memory as layer (Titans, section 4.3, Eqs. 29 to 31).

    m = M([p | x])                  the memory first                      (30)
    y = SWA([p | norm(x + m)])      then the sliding window               (31)
    o = m + y

Reading: the paper's main text follows hybrids in which every layer is residual, so the
attention reads the stream after the memory, `norm(x + m)`, and the block adds both. Fed
with `m` alone, attention would see the tokens only through a memory not yet trained.
As in MAG, `attention.persistent_in_memory` says whether `p` passes through the memory.
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


class MALState(eqx.Module):
    """Where a MAL layer stands in its stream."""

    memory: NeuralMemoryState
    window: WindowCache


class MemoryAsLayer(AbstractMemoryMixer[MALState]):
    """The MAL mixer."""

    memory: NeuralMemory
    attention_norm: eqx.nn.RMSNorm
    attention: SlidingAttention

    persistent_in_memory: bool = eqx.field(static=True)

    def __init__(self, config: ModelConfig, *, key: PRNGKeyArray) -> None:
        """Build the mixer of one layer.

        Args:
            config: Sizes and options of the model.
            key: Random key.
        """
        memory_key, attention_key = jr.split(key)
        self.memory = NeuralMemory(config.d_model, config.memory, key=memory_key)
        self.attention_norm = eqx.nn.RMSNorm(config.d_model, use_bias=False)
        self.attention = build_sliding_attention(config, key=attention_key)
        self.persistent_in_memory = config.attention.persistent_in_memory

    def init_state(self) -> MALState:
        """A fresh memory, which may have read the persistent tokens; no window."""
        prefix = self.attention.heads.persistent_tokens
        return MALState(
            memory=self.memory.init_state(
                prefix if self.persistent_in_memory else None
            ),
            window=self.attention.init_state(),
        )

    def __call__(
        self, x: Float[Array, "seq d_model"], state: MALState | None
    ) -> tuple[Float[Array, "seq d_model"], MALState]:
        """Mix a piece of a sequence; see `AbstractMixer.__call__`."""
        if state is None:
            m, memory = self.memory.start(x, self.init_state().memory)
            y, window = self.attention(jax.vmap(self.attention_norm)(x + m))
        else:
            m, memory = self.memory(x, state.memory)
            stream = jax.vmap(self.attention_norm)(x + m)
            y, window = self.attention(stream, state.window)
        return m + y, MALState(memory, window)

    def step(
        self, x: Float[Array, " d_model"], state: MALState
    ) -> tuple[Float[Array, " d_model"], MALState]:
        """Mix one token; see `AbstractMixer.step`."""
        m, memory = self.memory.step(x, state.memory)
        y, window = self.attention.step(self.attention_norm(x + m), state.window)
        return m + y, MALState(memory, window)

    def memory_view(
        self, x: Float[Array, " d_model"], state: MALState
    ) -> tuple[Float[Array, " d_model"], NeuralMemoryState]:
        """See `AbstractMemoryMixer.memory_view`."""
        return x, state.memory
