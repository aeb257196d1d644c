"""Which slots of a padded piece of a sequence hold real tokens.

Chunks and segments have fixed places, and a stream may stop anywhere in them. A piece
of `n` tokens that starts `phase` tokens into a chunk is laid into a buffer at offset
`phase`, so that slot numbers and chunk places agree; the slots before and after it are
padding. The offset may be traced, so that one compiled function serves every phase.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree, Shaped


class Span(eqx.Module):
    """Slots `start <= slot < stop` of a buffer of `length` slots are real tokens."""

    start: Int[Array, ""]
    stop: Int[Array, ""]

    length: int = eqx.field(static=True)
    is_whole: bool = eqx.field(static=True)

    @classmethod
    def whole(cls, length: int) -> "Span":
        """Every slot is real: known while tracing, so that padding costs nothing.

        Args:
            length: Slots of the buffer.

        Returns:
            The span of all slots.
        """
        return cls.leading(length, length)

    @classmethod
    def leading(cls, n_tokens: int, length: int) -> "Span":
        """The first `n_tokens` slots are real.

        Args:
            n_tokens: Real tokens.
            length: Slots of the buffer.

        Returns:
            The span of the leading slots.
        """
        return cls(
            start=jnp.zeros((), jnp.int32),
            stop=jnp.full((), n_tokens, jnp.int32),
            length=length,
            is_whole=n_tokens == length,
        )

    @classmethod
    def placed(cls, n_tokens: int, phase: Int[Array, ""], unit: int) -> "Span":
        """The span of `n_tokens` tokens that start `phase` slots into a unit.

        Args:
            n_tokens: Real tokens.
            phase: Tokens of the current unit that were read before, in `[0, unit)`.
            unit: Length of a chunk or segment; the buffer is a whole number of them,
                enough for any phase.

        Returns:
            The span inside that buffer.
        """
        length = -(-(n_tokens + unit - 1) // unit) * unit
        phase = phase.astype(jnp.int32)
        return cls(start=phase, stop=phase + n_tokens, length=length, is_whole=False)

    def mask(self) -> Bool[Array, " {self.length}"]:
        """True where a slot holds a real token."""
        slots = jnp.arange(self.length, dtype=jnp.int32)
        return (slots >= self.start) & (slots < self.stop)

    def part(self, first: Int[Array, ""], length: int) -> "Span":
        """This span as seen from the `length` slots that begin at slot `first`.

        Args:
            first: First slot of the part.
            length: Slots of the part.

        Returns:
            The span in the part's own slot numbers; it may be empty.
        """
        if self.is_whole:
            return Span.whole(length)
        start = jnp.clip(self.start - first, 0, length)
        stop = jnp.clip(self.stop - first, 0, length)
        return Span(start=start, stop=stop, length=length, is_whole=False)

    def place(self, tokens: PyTree[Shaped[Array, "_ ..."]]) -> PyTree[Array]:
        """Lay arrays of real tokens into zero-filled buffers of `length` slots.

        Args:
            tokens: Arrays whose first axis is the real tokens.

        Returns:
            The same tree with `length` slots along the first axis.
        """

        def place_one(x: Array) -> Array:
            buffer = jnp.zeros((self.length, *x.shape[1:]), x.dtype)
            return jax.lax.dynamic_update_slice_in_dim(buffer, x, self.start, axis=0)

        return tokens if self.is_whole else jax.tree.map(place_one, tokens)

    def take(
        self, slots: PyTree[Shaped[Array, "_ ..."]], n_tokens: int
    ) -> PyTree[Array]:
        """The inverse of `place`.

        Args:
            slots: Arrays with `length` slots along the first axis.
            n_tokens: How many real tokens the span holds.

        Returns:
            The real tokens.
        """

        def take_one(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, self.start, n_tokens, axis=0)

        return slots if self.is_whole else jax.tree.map(take_one, slots)

    def overlay(self, new: PyTree[Array], old: PyTree[Array]) -> PyTree[Array]:
        """Buffers with the real slots taken from `new` and the others from `old`.

        Args:
            new: Arrays with `length` slots along the first axis.
            old: Arrays of the same shapes.

        Returns:
            The combined tree.
        """
        if self.is_whole:
            return new
        is_real = self.mask()

        def choose(new: Array, old: Array) -> Array:
            column = is_real.reshape(-1, *[1] * (new.ndim - 1))
            return jnp.where(column, new, old)

        return jax.tree.map(choose, new, old)
