"""The feed-forward half of a block."""

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.nn.linear import linear_rows


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

    def __call__(
        self, x: Float[Array, "*rows d_model"]
    ) -> Float[Array, "*rows d_model"]:
        """Transform tokens, each by itself.

        Args:
            x: Tokens of the normalised stream, or one of them.

        Returns:
            What the block adds to the stream.
        """
        gate = linear_rows(self.gate_projection, x)
        inside = linear_rows(self.in_projection, x)
        return linear_rows(self.out_projection, gated(gate, inside))


@jax.custom_jvp
def gated(
    gate: Float[Array, "*shape"], inside: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """`silu(gate) * inside`, that keeps two arrays for the backward pass.

    They are what the gradients are multiplied by. Autodiff alone keeps four, and works
    out the gradient from them twice: for the inputs of the maps and, along the other
    axis, for their weights.
    """
    return jax.nn.silu(gate) * inside


@gated.defjvp
def _gated_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    gate, inside = primals
    share = jax.nn.sigmoid(gate)
    opened = gate * share
    slope = inside * (share + opened * (1 - share))
    return opened * inside, slope * tangents[0] + opened * tangents[1]
