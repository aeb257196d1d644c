"""Causal depthwise convolution over time, and the projection that ends in one.

The paper follows each of the query, key and value projections with a one-dimensional
depthwise convolution (Titans section 4.4); the projection is its pointwise half.
"""

from functools import partial
from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.errors import check_size
from titans_eqx.nn.depthwise import depthwise_product
from titans_eqx.nn.documents import Documents
from titans_eqx.nn.linear import linear_rows
from titans_eqx.nn.padding import Padding

Activation: TypeAlias = Literal["silu", "none"]
KernelStart: TypeAlias = Literal["token", "context"]


def delayed_rows(
    x: Float[Array, "positions channels"],
    history: Float[Array, "n_before channels"],
    padding: Padding,
    documents: Documents | None = None,
    fresh: Float[Array, "n_before channels"] | None = None,
) -> tuple[list[Float[Array, "positions channels"]], Float[Array, "n_before channels"]]:
    """Rows of a stream, and those that came up to `n_before` rows before them.

    Args:
        x: Rows.
        history: The last rows before the first real position.
        padding: Which positions are real.
        documents: Where the rows start anew, if they do.
        fresh: The history of a document; zeros by default.

    Returns:
        What came `n_before, ..., 1, 0` rows before each real position; and the history
        of what follows the last one.
    """
    n_before, length = history.shape[0], x.shape[0]
    extended, history = _extended(x, history, padding)
    rows = [extended[i : i + length] for i in range(n_before + 1)]
    if documents is not None:
        fresh = jnp.zeros_like(history) if fresh is None else fresh
        rows[:-1] = [
            documents.own_rows(one, fresh, n_before - i)
            for i, one in enumerate(rows[:-1])
        ]
        history = documents.own_history(history, fresh)
    return rows, history


def _extended(
    x: Float[Array, "positions channels"],
    history: Float[Array, "n_before channels"],
    padding: Padding,
) -> tuple[
    Float[Array, "extended channels"],
    Float[Array, "n_before channels"],
]:
    """Rows after those before them; and the last rows up to the last real position."""
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

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        *,
        start: KernelStart = "token",
        delay: int = 0,
        key: PRNGKeyArray,
    ) -> None:
        """Start near the identity, so that depth does not blur the stream.

        Args:
            channels: Width.
            kernel_size: Tokens that are seen.
            start: Near the identity, or a random mix of all tokens seen, less of those
                further back, so that the outputs tell contexts apart.
            delay: Start near the token so many tokens back instead of the identity;
                a mix has none.
            key: Random key.

        Raises:
            ValueError: If `kernel_size` is less than 1, `delay` is not inside it, or a
                mix is to have one.
        """
        check_size("kernel_size", kernel_size)
        if not 0 <= delay < kernel_size:
            raise ValueError(
                f"delay must be from 0 to kernel_size - 1, got delay={delay} with "
                f"kernel_size={kernel_size}."
            )
        if start == "context" and delay > 0:
            raise ValueError(
                f'delay must be 0 with start="context", got delay={delay}.'
            )
        noise = jr.normal(key, (kernel_size, channels))
        if start == "context":
            sizes = jnp.arange(2.0, kernel_size + 2.0)
            self.kernel = noise * (sizes / jnp.linalg.norm(sizes))[:, None]
        else:
            noise = noise * (0.3 / kernel_size**0.5)
            self.kernel = noise.at[kernel_size - 1 - delay].add(1.0)
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
        documents: Documents | None = None,
        fresh: Float[Array, "conv_state_len {self.channels}"] | None = None,
    ) -> tuple[
        Float[Array, "positions {self.channels}"],
        Float[Array, "conv_state_len {self.channels}"],
    ]:
        """Convolve the real positions.

        Args:
            x: Inputs.
            conv_state: The `kernel_size - 1` inputs before the first real position.
            padding: Outputs at padding are meaningless.
            documents: Where the inputs start anew, if they do.
            fresh: The inputs before a document; zeros by default.

        Returns:
            Outputs, and the last `kernel_size - 1` inputs up to the last real position.
        """
        if documents is None:
            extended, conv_state = _extended(x, conv_state, padding)
            return depthwise_product(extended, self.kernel), conv_state
        delayed, conv_state = delayed_rows(x, conv_state, padding, documents, fresh)
        # In halves, the gradient by the kernel is a sum over two axes. On a CPU that is
        # one loop, five times as fast as a sum over one axis or a product with ones.
        n_halves = 2 if x.shape[0] % 2 == 0 else 1
        split = partial(
            rearrange,
            pattern="(halves n) channels -> halves n channels",
            halves=n_halves,
        )
        y = jnp.zeros_like(split(x))
        for tap, rows in zip(self.kernel, delayed, strict=True):
            y = y + tap[None, None, :] * split(rows)
        y = rearrange(y, "halves n channels -> (halves n) channels")
        return y, conv_state


class ConvProjection(eqx.Module):
    """Linear map → causal depthwise convolution → SiLU; kernel size 1 only scales."""

    linear: eqx.nn.Linear
    conv: CausalConv

    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        d_model: int,
        kernel_size: int,
        *,
        activation: Activation = "silu",
        start: KernelStart = "token",
        key: PRNGKeyArray,
    ) -> None:
        """A projection of the stream to its own width; `start` is the convolution's."""
        linear_key, conv_key = jr.split(key)
        self.linear = eqx.nn.Linear(d_model, d_model, use_bias=False, key=linear_key)
        self.conv = CausalConv(d_model, kernel_size, start=start, key=conv_key)
        self.activation = activation

    def __call__(
        self,
        x: Float[Array, "positions d_model"],
        conv_state: Float[Array, "conv_state_len d_model"],
        padding: Padding,
        documents: Documents | None = None,
        fresh: Float[Array, "conv_state_len d_model"] | None = None,
    ) -> tuple[
        Float[Array, "positions d_model"], Float[Array, "conv_state_len d_model"]
    ]:
        """Project the real positions; see `CausalConv.__call__`."""
        rows = linear_rows(self.linear, x)
        y, conv_state = self.conv(rows, conv_state, padding, documents, fresh)
        return y if self.activation == "none" else jax.nn.silu(y), conv_state
