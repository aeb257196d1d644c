"""LMM, the long-term memory alone (Titans, section 3): no attention in the block."""

from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.config import ModelConfig
from titans_eqx.memory.layer import NeuralMemory, NeuralMemoryState
from titans_eqx.models.mixer import AbstractMemoryMixer


class MemoryAlone(AbstractMemoryMixer[NeuralMemoryState]):
    """The LMM mixer."""

    memory: NeuralMemory

    def __init__(self, config: ModelConfig, *, key: PRNGKeyArray) -> None:
        """Build the mixer of one layer.

        Args:
            config: Sizes and options of the model.
            key: Random key.
        """
        self.memory = NeuralMemory(config.d_model, config.memory, key=key)

    def init_state(self) -> NeuralMemoryState:
        """A fresh memory."""
        return self.memory.init_state()

    def __call__(
        self, x: Float[Array, "seq d_model"], state: NeuralMemoryState | None
    ) -> tuple[Float[Array, "seq d_model"], NeuralMemoryState]:
        """Mix a piece of a sequence; see `AbstractMixer.__call__`."""
        return self.memory(x, state)

    def step(
        self, x: Float[Array, " d_model"], state: NeuralMemoryState
    ) -> tuple[Float[Array, " d_model"], NeuralMemoryState]:
        """Mix one token; see `AbstractMixer.step`."""
        return self.memory.step(x, state)

    def memory_view(
        self, x: Float[Array, " d_model"], state: NeuralMemoryState
    ) -> tuple[Float[Array, " d_model"], NeuralMemoryState]:
        """See `AbstractMemoryMixer.memory_view`."""
        return x, state
