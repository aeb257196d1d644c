"""MAG, memory as gate (Titans, section 4.2, Eqs. 26 to 28).

    y = SWA([p | x])      sliding window with an always visible prefix    (27)
    m = M([p | x])        the memory reads the same tokens, in parallel
    o = gate(y, m)                                                        (28)

Whether the persistent tokens `p` pass through the memory too, see `hybrid.py`.
"""

import equinox as eqx
import jax
from jaxtyping import Array, Float

from titans_eqx.attention import SlidingAttention
from titans_eqx.memory import AbstractMemory, MemoryStats
from titans_eqx.models.gate import MemoryGate
from titans_eqx.models.hybrid import (
    HybridState,
    init_hybrid_state,
    read_memory,
)
from titans_eqx.models.mixer import AbstractMemoryMixer
from titans_eqx.nn.documents import Documents


class MemoryAsGate(AbstractMemoryMixer[HybridState]):
    """The MAG mixer."""

    memory: AbstractMemory
    attention: SlidingAttention
    gate: MemoryGate

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
        window = None if state is None else state.window
        y, window = self.attention(x, window, documents)
        return jax.vmap(self.gate)(y, m), HybridState(memory, window)

    def step(
        self, x: Float[Array, " d_model"], state: HybridState
    ) -> tuple[Float[Array, " d_model"], HybridState]:
        """See `AbstractMixer.step`."""
        m, memory = self.memory.step(x, state.memory)
        y, window = self.attention.step(x, state.window)
        return self.gate(y, m), HybridState(memory, window)

    def probe(self, x: Float[Array, " d_model"], state: HybridState) -> MemoryStats:
        """See `AbstractMemoryMixer.probe`."""
        return self.memory.probe(x, state.memory)

    def forget(self, state: HybridState) -> HybridState:
        """See `AbstractMemoryMixer.forget`."""
        return HybridState(self.init_state().memory, state.window)
