"""The baseline: the same block without memory."""

from jaxtyping import Array, Float

from titans_eqx.attention import SlidingAttention, WindowCache
from titans_eqx.models.mixer import AbstractMixer
from titans_eqx.nn.documents import Documents


class AttentionOnly(AbstractMixer[WindowCache]):
    """Sliding-window attention; a window as long as the sequence is full attention."""

    attention: SlidingAttention

    def init_state(self) -> WindowCache:
        """An empty window."""
        return self.attention.init_state()

    def __call__(
        self,
        x: Float[Array, "seq d_model"],
        state: WindowCache | None,
        documents: Documents | None = None,
    ) -> tuple[Float[Array, "seq d_model"], WindowCache]:
        """See `AbstractMixer.__call__`."""
        return self.attention(x, state, documents)

    def step(
        self, x: Float[Array, " d_model"], state: WindowCache
    ) -> tuple[Float[Array, " d_model"], WindowCache]:
        """See `AbstractMixer.step`."""
        return self.attention.step(x, state)
