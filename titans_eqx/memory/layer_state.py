"""What a `NeuralMemory` layer keeps: the memories of its heads, and a few inputs."""

import equinox as eqx
from jaxtyping import Array, Float

from titans_eqx.memory.state import MemoryState


class ConvInputs(eqx.Module):
    """Inputs that the three convolutions keep for the next token."""

    query: Float[Array, "n_carried d_model"]
    key: Float[Array, "n_carried d_model"]
    value: Float[Array, "n_carried d_model"]


class NeuralMemoryState(eqx.Module):
    """What the layer keeps between the pieces of a stream; its size never changes."""

    memory: MemoryState  # leading axis: heads
    conv_inputs: ConvInputs
