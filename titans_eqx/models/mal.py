"""MAL, memory as layer (Titans, section 4.3, Eqs. 29 to 31).

    m = M([p | x])                  the memory first                      (30)
    y = SWA([p | norm(x + m)])      then the sliding window               (31)
    o = m + y

Reading: the paper's main text follows hybrids in which every layer is residual, so the
attention reads the stream after the memory, `norm(x + m)`, and the block adds both. Fed
with `m` alone, attention would see the tokens only through a memory not yet trained.
Whether the persistent tokens `p` pass through the memory too, see `hybrid.py`.
"""

import equinox as eqx
import jax
from jaxtyping import Array, Float

from titans_eqx.attention import SlidingAttention
from titans_eqx.memory import AbstractMemory, MemoryStats
from titans_eqx.models.hybrid import (
    HybridState,
    init_hybrid_state,
    read_memory,
)
from titans_eqx.models.mixer import AbstractMemoryMixer
from titans_eqx.nn.documents import Documents


class MemoryAsLayer(AbstractMemoryMixer[HybridState]):
    """The MAL mixer."""

    memory: AbstractMemory
    attention_norm: eqx.nn.RMSNorm
    attention: SlidingAttention

    persistent_in_memory: bool = eqx.field(static=True)

    def init_state(self) -> HybridState:
        """See `init_hybrid_state`."""
        return init_hybrid_state(
            self.memory,
            self.attention,
            persistent_in_memory=self.persistent_in_memory,
        )

    def __call__(
        self,
        x: Float[Array, "seq d_model"],
        state: HybridState | None,
        documents: Documents | None = None,
    ) -> tuple[Float[Array, "seq d_model"], HybridState]:
        """See `AbstractMixer.__call__`."""
        m, memory = read_memory(
            self.memory,
            self.attention,
            x,
            state,
            documents,
            persistent_in_memory=self.persistent_in_memory,
        )
        stream = jax.vmap(self.attention_norm)(x + m)
        window = None if state is None else state.window
        y, window = self.attention(stream, window, documents)
        return m + y, HybridState(memory, window)

    def step(
        self, x: Float[Array, " d_model"], state: HybridState
    ) -> tuple[Float[Array, " d_model"], HybridState]:
        """See `AbstractMixer.step`."""
        m, memory = self.memory.step(x, state.memory)
        y, window = self.attention.step(self.attention_norm(x + m), state.window)
        return m + y, HybridState(memory, window)

    def probe(self, x: Float[Array, " d_model"], state: HybridState) -> MemoryStats:
        """See `AbstractMemoryMixer.probe`."""
        return self.memory.probe(x, state.memory)

    def forget(self, state: HybridState) -> HybridState:
        """See `AbstractMemoryMixer.forget`."""
        return HybridState(self.init_state().memory, state.window)
