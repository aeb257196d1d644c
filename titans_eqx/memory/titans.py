"""One chunk of the fast form: all of its reads and writes in matrix products.

All gradients of a chunk are taken at its anchor, so they come from one forward and one
backward pass over its rows. The gradient of a linear map at token `i` is rank one,
`u_i = a_i^T g_i` (input and output gradient of the map), so the map with the weights of
time `t` is applied to a row `x_t` without building them:

    x_t M_t = A_t (x_t M) + f_t (x_t S) - sum_{i <= t} H[t, i] (x_t . a_i) theta_i g_i

which is one masked, attention-like product for each memory layer; see `decay.py` for
`A`, `f` and `H`. With channel-wise decay each input channel has an `A`, `f` and `H` of
its own, and the sum over channels in `x_t . a_i` is weighted with `H`: for a chunk of
`b` tokens that costs `b^2` numbers and `b^3` multiplications for each channel, against
`b^2` and `b^3` in all.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.decay import ChunkDecay, before_own_write, chunk_decay
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.rule import UpdateRule
from titans_eqx.memory.state import MemoryInputs
from titans_eqx.memory.surprise import surprise_factors
from titans_eqx.nn.remat import keep


class ChunkFactors(eqx.Module):
    """Decay factors of one chunk for each memory layer; leading axis: channels."""

    written: tuple[ChunkDecay, ...]
    seen: tuple[ChunkDecay, ...]

    @classmethod
    def build(
        cls, rule: UpdateRule, inputs: MemoryInputs, is_real: Bool[Array, " chunk"]
    ) -> "ChunkFactors":
        """The factors of one chunk, which do not depend on the memory.

        Args:
            rule: Says whether a read sees the token's own write.
            inputs: The chunk, with gates at padding that change nothing.
            is_real: False for padding.

        Returns:
            Factors of writes and reads.
        """
        over_channels = jax.vmap(chunk_decay, in_axes=(1, None, None))
        written = tuple(
            over_channels(inputs.layer_decay(layer), inputs.momentum[:, layer], is_real)
            for layer in range(inputs.momentum.shape[1])
        )
        if rule.read == "after":
            return cls(written, seen=written)
        return cls(written, seen=tuple(map(jax.vmap(before_own_write), written)))


class Chunk(eqx.Module):
    """The tokens of one chunk, with what is known before the memory comes along."""

    inputs: MemoryInputs
    is_real: Bool[Array, " chunk"]
    # None: built when the chunk's turn comes, because those of all channels of all
    # chunks at once would take `channels * chunk_len` numbers for each token.
    factors: ChunkFactors | None

    @classmethod
    def prepare(
        cls, rule: UpdateRule, inputs: MemoryInputs, is_real: Bool[Array, " chunk"]
    ) -> "Chunk":
        """Make padding an exact no-op, and build what can be built ahead.

        Args:
            rule: The update rule.
            inputs: The chunk; rows of padding may hold anything finite.
            is_real: False for padding.

        Returns:
            The chunk, ready to be read and written.
        """
        column = is_real[:, None]
        inputs = MemoryInputs(
            queries=inputs.queries,
            keys=inputs.keys,
            values=inputs.values,
            decay=jax.tree.map(lambda x: jnp.where(column, x, 0), inputs.decay),
            momentum=jnp.where(column, inputs.momentum, 1),
            step=jnp.where(column, inputs.step, 0),
        )
        if inputs.is_channel_wise:
            return cls(inputs, is_real, factors=None)
        return cls(inputs, is_real, ChunkFactors.build(rule, inputs, is_real))

    def read_and_write(
        self,
        net: AbstractMemoryNet,
        rule: UpdateRule,
        target: MemoryWeights | None,
        *,
        anchor: MemoryWeights,
        weights: MemoryWeights,
        momentum: MemoryWeights,
    ) -> tuple[Float[Array, "chunk d"], MemoryWeights, MemoryWeights]:
        """Pass the chunk through the memory.

        Args:
            net: Structure of the memory.
            rule: The update rule.
            target: Where forgetting leads; None for zero.
            anchor: Where the surprises are taken.
            weights: M before the chunk.
            momentum: S before the chunk.

        Returns:
            Reads of the chunk, and M and S after it.
        """
        inputs = self.inputs
        factors = self.factors or ChunkFactors.build(rule, inputs, self.is_real)
        layer_inputs, gradients = surprise_factors(
            net, rule.boundary.anchor(anchor), inputs.keys, inputs.values
        )
        norms = [
            _square_norms(a) * _square_norms(g)
            for a, g in zip(layer_inputs, gradients, strict=True)
        ]
        square_norm = jnp.sum(jnp.stack(norms), axis=0)
        step = inputs.step * rule.clip_scale(square_norm)[:, None]
        steps = tuple(step[:, i, None] * g for i, g in enumerate(gradients))

        def linear(layer: int, x: Float[Array, "chunk d_in"]) -> Array:
            seen = factors.seen[layer]
            scores = _decayed_scores(x, layer_inputs[layer], seen.written)
            y = (seen.kept.T * x) @ weights[layer] - scores @ steps[layer]
            y = y + (seen.pushed.T * x) @ momentum[layer]
            if target is not None:
                y = y + ((1 - seen.kept.T) * x) @ target[layer]
            return keep(y)

        reads = net.forward(linear, inputs.queries)
        new_weights, new_momentum = [], []
        for layer, (a, g) in enumerate(zip(layer_inputs, steps, strict=True)):
            last = factors.written[layer]
            kept, pushed = last.kept[:, -1:], last.pushed[:, -1:]
            m = kept * weights[layer] + pushed * momentum[layer]
            m = m - (last.written[:, -1].T * a).T @ g
            if target is not None:
                m = m + (1 - kept) * target[layer]
            # Momentum has no channels: these factors are the same in all of them.
            s = last.momentum_kept[0] * momentum[layer]
            s = s - (last.momentum_written[0][:, None] * a).T @ g
            new_weights.append(m)
            new_momentum.append(s)
        return reads, tuple(new_weights), tuple(new_momentum)


def _decayed_scores(
    x: Float[Array, "chunk d_in"],
    a: Float[Array, "chunk d_in"],
    written: Float[Array, "channels chunk chunk"],
) -> Float[Array, "chunk chunk"]:
    """`sum_c x_t[c] H_c[t, i] a_i[c]`."""
    if written.shape[0] == 1:
        return written[0] * keep(x @ a.T)
    return jnp.einsum("tc,cti,ic->ti", x, written, a)


def _square_norms(rows: Float[Array, "chunk _"]) -> Float[Array, " chunk"]:
    # Finite, or a zero key beside a value of 1e20 would be written as 0 * inf.
    return jnp.minimum(jnp.sum(jnp.square(rows), axis=1), jnp.finfo(rows.dtype).max)
