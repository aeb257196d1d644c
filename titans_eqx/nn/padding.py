"""Which positions of a buffer hold real tokens.

Chunks and segments have fixed places, and a stream may stop anywhere in them. `n`
tokens that start `offset` tokens into a chunk are laid into a buffer at position
`offset`, so that positions and chunks agree; the positions before and after them are
padding. The offset may be traced, so that one compiled function serves every offset.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree, Shaped


class Padding(eqx.Module):
    """Positions `start <= i < stop` of a buffer are real tokens, the others padding.

    Of a block of a longer buffer, `start` and `stop` may lie outside the block;
    `-start` is then the number of real tokens in the blocks before.
    """

    start: Int[Array, ""]
    stop: Int[Array, ""]

    length: int = eqx.field(static=True)
    is_none: bool = eqx.field(static=True)  # known while tracing to have no padding

    @classmethod
    def none(cls, length: int) -> "Padding":
        """Every position is real."""
        return cls.trailing(length, length)

    @classmethod
    def trailing(cls, n_tokens: int, length: int) -> "Padding":
        """The first `n_tokens` of `length` positions are real."""
        return cls(
            start=jnp.zeros((), jnp.int32),
            stop=jnp.full((), n_tokens, jnp.int32),
            length=length,
            is_none=n_tokens == length,
        )

    @classmethod
    def aligned(cls, n_tokens: int, offset: Int[Array, ""], unit: int) -> "Padding":
        """Align tokens with the chunks (or segments) of a stream.

        Args:
            n_tokens: Real tokens.
            offset: Tokens of the current unit that were read before, in `[0, unit)`.
            unit: Length of a chunk or segment; the buffer is a whole number of them,
                enough for any offset.
        """
        length = -(-(n_tokens + unit - 1) // unit) * unit
        offset = offset.astype(jnp.int32)
        return cls(start=offset, stop=offset + n_tokens, length=length, is_none=False)

    @property
    def end(self) -> Int[Array, ""]:
        """`stop`, inside the buffer."""
        return jnp.clip(self.stop, 0, self.length)

    @property
    def n_real(self) -> Int[Array, ""]:
        """Real tokens in the buffer."""
        return self.end - jnp.clip(self.start, 0, self.length)

    def is_real(self) -> Bool[Array, " {self.length}"]:
        """True where a position holds a real token."""
        positions = jnp.arange(self.length, dtype=jnp.int32)
        return (positions >= self.start) & (positions < self.stop)

    def block(self, first: Int[Array, ""], length: int) -> "Padding":
        """The padding of `length` positions from `first` on."""
        return Padding(self.start - first, self.stop - first, length, self.is_none)

    def pad(self, tokens: PyTree[Shaped[Array, "_ ..."]]) -> PyTree[Array]:
        """Lay arrays of real tokens (first axis) into zero-filled buffers."""

        def pad_one(x: Array) -> Array:
            buffer = jnp.zeros((self.length, *x.shape[1:]), x.dtype)
            return jax.lax.dynamic_update_slice_in_dim(buffer, x, self.start, axis=0)

        return tokens if self.is_none else jax.tree.map(pad_one, tokens)

    def unpad(
        self, buffers: PyTree[Shaped[Array, "_ ..."]], n_tokens: int
    ) -> PyTree[Array]:
        """The inverse of `pad`: the `n_tokens` real tokens."""

        def unpad_one(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, self.start, n_tokens, axis=0)

        return buffers if self.is_none else jax.tree.map(unpad_one, buffers)

    def merge(self, new: PyTree[Array], old: PyTree[Array]) -> PyTree[Array]:
        """Buffers with real positions from `new`, the others from `old`."""
        if self.is_none:
            return new
        is_real = self.is_real()

        def choose(new: Array, old: Array) -> Array:
            column = is_real.reshape(-1, *[1] * (new.ndim - 1))
            return jnp.where(column, new, old)

        return jax.tree.map(choose, new, old)
