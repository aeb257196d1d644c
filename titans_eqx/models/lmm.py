"""LMM, the long-term memory alone (Titans, section 3): no attention in the block."""

from jaxtyping import Array, Float, PyTree

from titans_eqx.memory import AbstractMemory, MemoryStats
from titans_eqx.models.mixer import AbstractMemoryMixer
from titans_eqx.nn.documents import Documents


class LongTermMemory(AbstractMemoryMixer[PyTree[Array]]):
    """The LMM mixer."""

    memory: AbstractMemory

    def init_state(self) -> PyTree[Array]:
        """A fresh memory."""
        return self.memory.init_state()

    def __call__(
        self,
        x: Float[Array, "seq d_model"],
        state: PyTree[Array] | None,
        documents: Documents | None = None,
    ) -> tuple[Float[Array, "seq d_model"], PyTree[Array]]:
        """See `AbstractMixer.__call__`."""
        if documents is None:
            return self.memory(x, state)
        return self.memory.read_documents(x, documents, self.init_state(), state)

    def step(
        self, x: Float[Array, " d_model"], state: PyTree[Array]
    ) -> tuple[Float[Array, " d_model"], PyTree[Array]]:
        """See `AbstractMixer.step`."""
        return self.memory.step(x, state)

    def probe(self, x: Float[Array, " d_model"], state: PyTree[Array]) -> MemoryStats:
        """See `AbstractMemoryMixer.probe`."""
        return self.memory.probe(x, state)
