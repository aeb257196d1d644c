"""From the reads of the memories of a layer back to the stream."""

from typing import Final, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.errors import check_option
from titans_eqx.nn.linear import linear_rows
from titans_eqx.nn.norm import bounded

OPEN: Final = 1.2784645427610738  # SiLU of it is 1


class ReadOut(eqx.Module):
    """Each head normalised, then a gate from the token, then a linear map (4.4)."""

    norm: eqx.nn.RMSNorm | None
    gate: eqx.nn.Linear
    projection: eqx.nn.Linear

    gate_offset: float = eqx.field(static=True)

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        norm: bool = True,
        gate_start: Literal["random", "open"] = "random",
        key: PRNGKeyArray,
    ) -> None:
        """Start at random maps.

        Args:
            d_model: Width of the stream.
            n_heads: Memories side by side.
            norm: Whether what a head reads is brought to unit mean square. Without, a
                memory that knows little about a query adds little.
            gate_start: The gate before training: random, so that each token passes
                other channels on, or 1 for all of them.
            key: Random key.
        """
        check_option("gate_start", gate_start, "random", "open")
        self.norm = eqx.nn.RMSNorm(d_model // n_heads, use_bias=False) if norm else None
        self.gate, self.projection = (
            eqx.nn.Linear(d_model, d_model, use_bias=False, key=k)
            for k in jr.split(key)
        )
        if gate_start == "open":
            weight = jnp.zeros_like(self.gate.weight)
            self.gate = eqx.tree_at(lambda gate: gate.weight, self.gate, weight)
        self.gate_offset = OPEN if gate_start == "open" else 0.0

    def __call__(
        self,
        x: Float[Array, "positions d_model"],
        reads: Float[Array, "positions heads d"],
    ) -> Float[Array, "positions d_model"]:
        """What the layer answers to tokens `x`, whose memories were read."""
        gate = jax.nn.silu(linear_rows(self.gate, bounded(x)) + self.gate_offset)
        reads = reads.astype(gate.dtype)
        if self.norm is not None:
            reads = jax.vmap(jax.vmap(self.norm))(reads)
        joined = rearrange(reads, "positions heads d -> positions (heads d)")
        return linear_rows(self.projection, joined * gate)
