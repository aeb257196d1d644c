"""The data-dependent gates that a rule asks for, as functions of the token.

Each gate has its values for every head (Titans, section 3.1 and appendix): a sigmoid of
a linear map, scaled to the range that its `GateSpec` gives.
"""

import itertools
from collections.abc import Mapping
from typing import Final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.memory.inputs import GateSpec
from titans_eqx.nn.linear import map_rows
from titans_eqx.nn.precision import at_least_float32
from titans_eqx.nn.remat import save_for_backward

WEIGHT_SCALE: Final = 0.1  # of the usual initial scale, so that starts hold


class Gates(eqx.Module):
    """All gates of a layer of memories."""

    linears: dict[str, eqx.nn.Linear]

    specs: tuple[tuple[str, GateSpec], ...] = eqx.field(static=True)
    n_heads: int = eqx.field(static=True)

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        specs: Mapping[str, GateSpec],
        *,
        is_shared: bool = False,
        key: PRNGKeyArray,
    ) -> None:
        """Start every gate at its constant, almost independent of the token.

        Args:
            d_model: Width of the stream.
            n_heads: Memories side by side.
            specs: The gates by name.
            is_shared: All values of a gate in a head are one.
            key: Random key.
        """
        self.specs = tuple(sorted(specs.items()))
        self.n_heads = n_heads
        keys = jr.split(key, len(self.specs))
        self.linears = {
            name: _build_linear(d_model, n_heads, spec, is_shared, key=k)
            for (name, spec), k in zip(self.specs, keys, strict=True)
        }

    def __call__(
        self, x: Float[Array, "*rows d_model"]
    ) -> dict[str, Float[Array, "*rows heads _"]]:
        """The gates at tokens, computed in float32 or wider.

        A slow decay's bias is about -9, where half precision has only every 16th part.
        """
        if not self.specs:
            return {}
        linears = [
            jax.tree.map(at_least_float32, self.linears[name]) for name, _ in self.specs
        ]
        # All gates in one product: each by itself is narrow, and reads the tokens anew.
        weight = jnp.concatenate([linear.weight for linear in linears])
        bias = jnp.concatenate([linear.bias for linear in linears])
        logits = save_for_backward(map_rows(weight, at_least_float32(x)))
        logits = logits + jnp.broadcast_to(bias, logits.shape)
        ends = list(itertools.accumulate(len(linear.weight) for linear in linears))
        parts = jnp.split(logits, ends[:-1], axis=-1)

        def gate(logits: Array, spec: GateSpec) -> Float[Array, "*rows heads _"]:
            size = logits.shape[-1] // self.n_heads
            logits = logits.reshape(*x.shape[:-1], self.n_heads, size)
            values = spec.high * jax.nn.sigmoid(logits)
            return jnp.broadcast_to(values, (*values.shape[:-1], spec.size))

        pairs = zip(self.specs, parts, strict=True)
        return {name: gate(part, spec) for (name, spec), part in pairs}


def _build_linear(
    d_model: int, n_heads: int, spec: GateSpec, is_shared: bool, *, key: PRNGKeyArray
) -> eqx.nn.Linear:
    """Small weights, and the bias at the logit of each head's start."""
    size = 1 if is_shared else spec.size
    linear = eqx.nn.Linear(d_model, n_heads * size, key=key)
    shares = spec.starts(n_heads) / spec.high
    logits = np.repeat(np.log(shares) - np.log1p(-shares), size)
    bias = jnp.asarray(logits, linear.weight.dtype)
    return eqx.tree_at(
        lambda g: (g.weight, g.bias), linear, (linear.weight * WEIGHT_SCALE, bias)
    )
