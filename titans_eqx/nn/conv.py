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
from titans_eqx.nn.padding import Padding


def with_history(
    x: Float[Array, "positions channels"],
    history: Float[Array, "n_before channels"],
    padding: Padding,
) -> tuple[
    Float[Array, "n_before+positions channels"], Float[Array, "n_before channels"]
]:
    """Rows of a stream behind those that came right before them.

    Args:
        x: Rows.
        history: The last rows before the first real position.
        padding: Which positions are real.

    Returns:
        Rows of which number `i + n_before` is position `i`, and those before it are its
        history if it is real; and the history of what follows the last real position.
    """
    n_before, length = history.shape[0], x.shape[0]
    if padding.is_none:
        extended, end = jnp.concatenate([history, x]), length
    else:
        extended = jnp.concatenate([jnp.zeros_like(history), x])
        start = jnp.clip(padding.start, 0, length)
        extended = jax.lax.dynamic_update_slice_in_dim(extended, history, start, axis=0)
        end = padding.end
    return extended, jax.lax.dynamic_slice_in_dim(extended, end, n_before)


class CausalConv(eqx.Module):
    """Depthwise convolution over the present and the last `kernel_size - 1` tokens.

    The last row of the kernel multiplies the present token. The inputs that the next
    token will need are returned, so a stream may be cut anywhere.
    """

    kernel: Float[Array, "kernel_size channels"]

    channels: int = eqx.field(static=True)
    kernel_size: int = eqx.field(static=True)

    def __init__(self, channels: int, kernel_size: int, *, key: PRNGKeyArray) -> None:
        """Start near the identity, so that depth does not blur the stream.

        Raises:
            ValueError: If `kernel_size` is less than 1.
        """
        if kernel_size < 1:
            raise ValueError(
                f"kernel_size must be at least 1, got kernel_size={kernel_size}."
            )
        noise = jr.normal(key, (kernel_size, channels)) * (0.3 / kernel_size**0.5)
        self.kernel = noise.at[-1].add(1.0)
        self.channels = channels
        self.kernel_size = kernel_size

    def init_state(self) -> Float[Array, "conv_state_len channels"]:
        """The inputs before the first token are zero."""
        return jnp.zeros((self.kernel_size - 1, self.channels), self.kernel.dtype)

    def __call__(
        self,
        x: Float[Array, "positions {self.channels}"],
        conv_state: Float[Array, "conv_state_len {self.channels}"],
        padding: Padding,
    ) -> tuple[
        Float[Array, "positions {self.channels}"],
        Float[Array, "conv_state_len {self.channels}"],
    ]:
        """Convolve the real positions.

        Args:
            x: Inputs.
            conv_state: The `kernel_size - 1` inputs before the first real position.
            padding: Outputs at padding are meaningless.

        Returns:
            Outputs, and the last `kernel_size - 1` inputs up to the last real position.
        """
        extended, conv_state = with_history(x, conv_state, padding)
        length = x.shape[0]
        y = jnp.zeros_like(x)
        for i in range(self.kernel_size):
            # A product, whose gradient by the kernel is one too; a broadcast's would be
            # a slow sum over positions.
            rows = jnp.ones((length, 1), x.dtype) @ self.kernel[i][None, :]
            y = y + rows * extended[i : i + length]
        return y, conv_state


class ConvProjection(eqx.Module):
    """Linear map → causal depthwise convolution → SiLU; kernel size 1 only scales."""

    linear: eqx.nn.Linear
    conv: CausalConv

    def __init__(self, d_model: int, kernel_size: int, *, key: PRNGKeyArray) -> None:
        """A projection of the stream to its own width."""
        linear_key, conv_key = jr.split(key)
        self.linear = eqx.nn.Linear(d_model, d_model, use_bias=False, key=linear_key)
        self.conv = CausalConv(d_model, kernel_size, key=conv_key)

    def __call__(
        self,
        x: Float[Array, "positions d_model"],
        conv_state: Float[Array, "conv_state_len d_model"],
        padding: Padding,
    ) -> tuple[
        Float[Array, "positions d_model"], Float[Array, "conv_state_len d_model"]
    ]:
        """Project the real positions; see `CausalConv.__call__`."""
        y, conv_state = self.conv(linear_rows(self.linear, x), conv_state, padding)
        return jax.nn.silu(y), conv_state
