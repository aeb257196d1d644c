"""The feed-forward half of a block."""

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.nn.remat import save_for_backward


class SwiGLU(eqx.Module):
    """`W_out (silu(W_gate x) * W_in x)`, the feed-forward of the Llama block."""

    gate_projection: eqx.nn.Linear
    in_projection: eqx.nn.Linear
    out_projection: eqx.nn.Linear

    def __init__(self, d_model: int, d_hidden: int, *, key: PRNGKeyArray) -> None:
        """Build the three bias-free maps.

        Args:
            d_model: Width of input and output.
            d_hidden: Inner width.
            key: Random key.
        """
        gate_key, in_key, out_key = jr.split(key, 3)
        self.gate_projection = eqx.nn.Linear(
            d_model, d_hidden, use_bias=False, key=gate_key
        )
        self.in_projection = eqx.nn.Linear(
            d_model, d_hidden, use_bias=False, key=in_key
        )
        self.out_projection = eqx.nn.Linear(
            d_hidden, d_model, use_bias=False, key=out_key
        )

    def __call__(self, x: Float[Array, " d_model"]) -> Float[Array, " d_model"]:
        """Transform one token.

        Args:
            x: A token of the normalised stream.

        Returns:
            What the block adds to the stream.
        """
        gate = save_for_backward(self.gate_projection(x))
        inside = save_for_backward(self.in_projection(x))
        return self.out_projection(jax.nn.silu(gate) * inside)
