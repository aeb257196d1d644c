"""Causal depthwise convolution over time, and the projection that ends in one.

The paper follows each of the query, key and value projections with a one-dimensional
depthwise convolution (Titans section 4.4); the projection is its pointwise half.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.nn.linear import linear_rows
from titans_eqx.nn.padding import Span


class CausalConv(eqx.Module):
    """Depthwise convolution over the present and the last `taps - 1` tokens.

    The last tap multiplies the present token. The inputs that the next token will need
    are returned, so a stream may be cut anywhere.
    """

    kernel: Float[Array, "taps channels"]

    channels: int = eqx.field(static=True)
    taps: int = eqx.field(static=True)

    def __init__(self, channels: int, taps: int, *, key: PRNGKeyArray) -> None:
        """Start near the identity, so that depth does not blur the stream.

        Args:
            channels: Width of the input.
            taps: Kernel size in tokens, at least 1.
            key: Random key of the kernel.

        Raises:
            ValueError: If `taps` is less than 1.
        """
        if taps < 1:
            raise ValueError(f"taps must be at least 1, got taps={taps}.")
        noise = jr.normal(key, (taps, channels)) * (0.3 / taps**0.5)
        self.kernel = noise.at[-1].add(1.0)
        self.channels = channels
        self.taps = taps

    def init_state(self) -> Float[Array, "n_carried channels"]:
        """No token was read yet: the inputs before the first token are zero."""
        return jnp.zeros((self.taps - 1, self.channels), self.kernel.dtype)

    def __call__(
        self,
        x: Float[Array, "slots {self.channels}"],
        carried: Float[Array, "n_carried {self.channels}"],
        span: Span,
    ) -> tuple[
        Float[Array, "slots {self.channels}"],
        Float[Array, "n_carried {self.channels}"],
    ]:
        """Convolve the real slots of a piece.

        Args:
            x: Inputs, one row a slot.
            carried: The `taps - 1` inputs before the first real slot.
            span: Which slots are real; outputs elsewhere are meaningless.

        Returns:
            Outputs, and the last `taps - 1` inputs up to the last real slot.
        """
        if span.is_whole:
            extended = jnp.concatenate([carried, x])
        else:
            extended = jnp.concatenate([jnp.zeros_like(carried), x])
            extended = jax.lax.dynamic_update_slice_in_dim(
                extended, carried, span.start, axis=0
            )
        length = x.shape[0]
        y = jnp.zeros_like(x)
        for tap in range(self.taps):
            rows = jnp.ones((length, 1), x.dtype) @ self.kernel[tap][None, :]
            y = y + rows * extended[tap : tap + length]
        carried = jax.lax.dynamic_slice_in_dim(extended, span.stop, self.taps - 1)
        return y, carried


class ConvProjection(eqx.Module):
    """Linear map → causal depthwise convolution → SiLU."""

    linear: eqx.nn.Linear
    conv: CausalConv

    def __init__(self, d_model: int, taps: int, *, key: PRNGKeyArray) -> None:
        """Build a projection of the stream to its own width.

        Args:
            d_model: Width of input and output.
            taps: Kernel size of the convolution; 1 only scales each channel.
            key: Random key.
        """
        linear_key, conv_key = jr.split(key)
        self.linear = eqx.nn.Linear(d_model, d_model, use_bias=False, key=linear_key)
        self.conv = CausalConv(d_model, taps, key=conv_key)

    def init_state(self) -> Float[Array, "n_carried d_model"]:
        """The carried inputs of the convolution at the start of a sequence."""
        return self.conv.init_state()

    def __call__(
        self,
        x: Float[Array, "slots d_model"],
        carried: Float[Array, "n_carried d_model"],
        span: Span,
    ) -> tuple[Float[Array, "slots d_model"], Float[Array, "n_carried d_model"]]:
        """Project the real slots of a piece.

        Args:
            x: Inputs, one row a slot.
            carried: What the convolution kept from the tokens before.
            span: Which slots are real.

        Returns:
            Projections, and what the convolution keeps for the tokens after.
        """
        y, carried = self.conv(linear_rows(self.linear, x), carried, span)
        return jax.nn.silu(y), carried
