"""The baseline: the same block without memory."""

from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.attention.sliding import SlidingAttention, WindowCache
from titans_eqx.config import ModelConfig
from titans_eqx.models.mixer import AbstractMixer


class AttentionOnly(AbstractMixer[WindowCache]):
    """Sliding-window attention; a window as long as the sequence is full attention."""

    attention: SlidingAttention

    def __init__(self, config: ModelConfig, *, key: PRNGKeyArray) -> None:
        """Build the mixer of one layer.

        Args:
            config: Sizes and options of the model.
            key: Random key.
        """
        self.attention = build_sliding_attention(config, key=key)

    def init_state(self) -> WindowCache:
        """An empty window."""
        return self.attention.init_state()

    def __call__(
        self, x: Float[Array, "seq d_model"], state: WindowCache | None
    ) -> tuple[Float[Array, "seq d_model"], WindowCache]:
        """Mix a piece of a sequence; see `AbstractMixer.__call__`."""
        return self.attention(x, state)

    def step(
        self, x: Float[Array, " d_model"], state: WindowCache
    ) -> tuple[Float[Array, " d_model"], WindowCache]:
        """Mix one token; see `AbstractMixer.step`."""
        return self.attention.step(x, state)


def build_sliding_attention(
    config: ModelConfig, *, key: PRNGKeyArray
) -> SlidingAttention:
    """The sliding-window attention that a model config describes.

    Args:
        config: Sizes and options of the model.
        key: Random key.

    Returns:
        The attention of one layer.
    """
    attention = config.attention
    return SlidingAttention(
        config.d_model,
        attention.n_heads,
        attention.n_persistent,
        attention.window,
        attention.rope_base,
        key=key,
    )
