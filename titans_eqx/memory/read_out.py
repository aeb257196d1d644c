"""From the reads of the memories of a layer back to the stream."""

import equinox as eqx
import jax
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.nn.linear import linear_rows


class ReadOut(eqx.Module):
    """Each head normalised, then a gate from the token, then a linear map (4.4)."""

    norm: eqx.nn.RMSNorm
    gate: eqx.nn.Linear
    projection: eqx.nn.Linear

    def __init__(self, d_model: int, n_heads: int, *, key: PRNGKeyArray) -> None:
        """Start at random maps."""
        self.norm = eqx.nn.RMSNorm(d_model // n_heads, use_bias=False)
        self.gate, self.projection = (
            eqx.nn.Linear(d_model, d_model, use_bias=False, key=k)
            for k in jr.split(key)
        )

    def __call__(
        self,
        x: Float[Array, "positions d_model"],
        reads: Float[Array, "positions heads d"],
    ) -> Float[Array, "positions d_model"]:
        """What the layer answers to tokens `x`, whose memories were read."""
        reads = jax.vmap(jax.vmap(self.norm))(reads.astype(x.dtype))
        joined = rearrange(reads, "positions heads d -> positions (heads d)")
        gate = jax.nn.silu(linear_rows(self.gate, x))
        return linear_rows(self.projection, joined * gate)
