"""What one memory reads and what it keeps (one head of one layer).

Symbols: `M` fast weights, `S` momentum ("past surprise"), `alpha` decay, `eta` momentum
gate, `theta` step size, as in "Titans: Learning to Memorize at Test Time", section 3.1.
"""

from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from titans_eqx.axes import MemoryWeights

Decay: TypeAlias = Float[Array, "seq depth"] | tuple[Float[Array, "seq _"], ...]
"""alpha: a column for each memory layer, or for each layer an array with a column for
each row of its weights (channel-wise)."""


class MemoryInputs(eqx.Module):
    """Everything the update rule needs to know about each token.

    The gates have one column for each memory layer: a deep memory gains little when its
    layers must forget at the same rate.
    """

    queries: Float[Array, "seq d"]  # q_t, unit L2 norm
    keys: Float[Array, "seq d"]  # k_t, unit L2 norm
    values: Float[Array, "seq d"]  # v_t, what M(k_t) should become
    decay: Decay  # alpha_t in [0, 1]
    momentum: Float[Array, "seq depth"]  # eta_t in [0, 1]
    step: Float[Array, "seq depth"]  # theta_t >= 0

    @property
    def is_channel_wise(self) -> bool:
        """Whether every row of a layer's weights forgets at a rate of its own."""
        return isinstance(self.decay, tuple)

    def layer_decay(self, layer: int) -> Float[Array, "*seq channels"]:
        """Alpha of one memory layer, to be broadcast over the columns of its weights.

        Args:
            layer: Which layer.

        Returns:
            One column for each row of the weights, or a single one for all of them.
        """
        if isinstance(self.decay, tuple):
            return self.decay[layer]
        return self.decay[..., layer : layer + 1]


class MemoryState(eqx.Module):
    """The memory of one sequence, at least float32 whatever the compute type.

    `anchor` is where gradients are taken: the weights at the end of the last whole
    chunk.
    """

    anchor: MemoryWeights
    weights: MemoryWeights  # M_t
    momentum: MemoryWeights  # S_t
    phase: Int[Array, ""]  # tokens read since the anchor, in [0, chunk_len)

    @classmethod
    def initial(cls, weights: MemoryWeights) -> "MemoryState":
        """The state before the first token: weights M_0, no surprise yet.

        Args:
            weights: M_0, one matrix for each memory layer.

        Returns:
            A state whose arrays are float32 or wider.
        """
        weights = tuple(at_least_float32(w) for w in weights)
        return cls(
            anchor=weights,
            weights=weights,
            momentum=jax.tree.map(jnp.zeros_like, weights),
            phase=jnp.zeros((), jnp.int32),
        )

    def at_chunk_start(self) -> "MemoryState":
        """The same memory with a chunk ended here: its weights become the anchor."""
        return MemoryState(
            anchor=self.weights,
            weights=self.weights,
            momentum=self.momentum,
            phase=jnp.zeros_like(self.phase),
        )


def at_least_float32(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Widen half-precision numbers: the memory adds up small steps.

    Args:
        x: Numbers of any floating type.

    Returns:
        The same numbers in float32, or unchanged if already that wide.
    """
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
