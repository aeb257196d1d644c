"""The three data-dependent gates of the update rule.

alpha (decay) and eta (momentum) are sigmoids, theta (step size) is a bounded sigmoid;
each has one value for every head and memory layer (Titans, section 3.1 and appendix).
With channel-wise decay, as in the camera-ready paper, alpha has one for every row of
every memory layer's weights.
"""

import itertools
import math
from typing import Final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.config import MemoryConfig
from titans_eqx.memory.state import at_least_float32

# Where the other two gates start, as logits: with little momentum (theta / (1 - eta)
# summed over a chunk must stay stable), at half the largest step.
MOMENTUM_START: Final = -2.2  # eta = 0.1
STEP_START: Final = 0.0  # theta = max_step / 2
WEIGHT_SCALE: Final = 0.1  # of the usual initial scale, so that the starts above hold


class MemoryGates(eqx.Module):
    """alpha, eta and theta of each head and memory layer, as functions of the token."""

    decay: eqx.nn.Linear | None
    momentum: eqx.nn.Linear | None
    step: eqx.nn.Linear

    n_heads: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    columns: int = eqx.field(static=True)  # depth, or 1: layers share their gates
    channels: tuple[int, ...] = eqx.field(static=True)  # of alpha; () = one
    max_step: float = eqx.field(static=True)

    def __init__(
        self,
        d_model: int,
        config: MemoryConfig,
        channels: tuple[int, ...],
        *,
        key: PRNGKeyArray,
    ) -> None:
        """Start every gate at its constant, almost independent of the token.

        Args:
            d_model: Width of the stream.
            config: Which gates exist, how many values each has, where alpha starts, and
                the largest step.
            channels: Rows of the weights of each memory layer, which with channel-wise
                decay have an alpha each.
            key: Random key.
        """
        self.n_heads = config.n_heads
        self.depth = config.depth
        self.max_step = config.max_step
        decay_key, momentum_key, step_key = jr.split(key, 3)
        self.columns = config.depth if config.gates == "per_layer" else 1
        width = config.n_heads * self.columns
        self.channels = channels if config.decay == "channel" else ()
        decay_width = config.n_heads * sum(self.channels) or width
        self.decay = (
            _gate(d_model, decay_width, _logit(config.decay_start), key=decay_key)
            if config.decay != "none"
            else None
        )
        self.momentum = (
            _gate(d_model, width, MOMENTUM_START, key=momentum_key)
            if config.use_momentum
            else None
        )
        self.step = _gate(d_model, width, STEP_START, key=step_key)

    def __call__(
        self, x: Float[Array, " d_model"]
    ) -> tuple[
        Float[Array, "heads depth"] | tuple[Float[Array, "heads _"], ...],
        Float[Array, "heads depth"],
        Float[Array, "heads depth"],
    ]:
        """The gates at one token.

        Args:
            x: The token.

        Returns:
            alpha in (0, 1), eta in (0, 1) and theta in (0, max_step), float32 or wider.
            A gate that is switched off is exactly zero. Channel-wise alpha has an array
            for each memory layer.
        """

        def sigmoid(gate: eqx.nn.Linear | None) -> Float[Array, "heads depth"]:
            shape = (self.n_heads, self.depth)
            if gate is None:
                return jnp.zeros_like(at_least_float32(x[:1]), shape=shape)
            logits = at_least_float32(gate(x)).reshape(self.n_heads, self.columns)
            return jnp.broadcast_to(jax.nn.sigmoid(logits), shape)

        return (
            self._channel_decay(x) if self.channels else sigmoid(self.decay),
            sigmoid(self.momentum),
            self.max_step * sigmoid(self.step),
        )

    def _channel_decay(
        self, x: Float[Array, " d_model"]
    ) -> tuple[Float[Array, "heads _"], ...]:
        assert self.decay is not None
        logits = at_least_float32(self.decay(x)).reshape(self.n_heads, -1)
        ends = list(itertools.accumulate(self.channels))[:-1]
        return tuple(jnp.split(jax.nn.sigmoid(logits), ends, axis=1))


def _logit(value: float) -> float:
    """What the sigmoid maps to a value in (0, 1)."""
    return math.log(value) - math.log1p(-value)


def _gate(
    d_model: int, width: int, start: float, *, key: PRNGKeyArray
) -> eqx.nn.Linear:
    """A linear map with small weights and the bias at the gate's starting logit."""
    gate = eqx.nn.Linear(d_model, width, key=key)
    # With its dtype given: a weakly typed start would turn strong in the first
    # training step, and the second step would be compiled anew.
    bias = jnp.full((width,), start, gate.weight.dtype)
    return eqx.tree_at(
        lambda g: (g.weight, g.bias), gate, (gate.weight * WEIGHT_SCALE, bias)
    )
