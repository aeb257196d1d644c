"""The delta rule's state, and what of a chunk does not depend on it."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.affine import AffineMap
from titans_eqx.memory.decay import ChunkDecay, scaled_product
from titans_eqx.memory.rule import AbstractRuleState
from titans_eqx.nn.triangular import solve_unit_lower


class DeltaState(AbstractRuleState):
    """Fast weights and, with momentum, their velocity."""

    weights: MemoryWeights  # M_t
    velocity: MemoryWeights  # S_t; no matrices without momentum
    chunk_offset: Int[Array, ""]


class PreparedRows(eqx.Module):
    """Keys or queries of a chunk, ready to meet the memory before it."""

    entering: Float[Array, "chunk d_in"]  # the one linear map
    rest: Float[Array, "chunk d"]  # what is added after it
    carry_weights: Float[Array, " chunk"]  # what is left of M
    carry_velocity: Float[Array, " chunk"]  # what S adds

    def read(self, state: DeltaState) -> Float[Array, "chunk d"]:
        """What the memory before the chunk answers them at their time."""
        (m,) = state.weights
        y = scaled_product(self.carry_weights[None], self.entering, m)
        for s in state.velocity:
            y = y + scaled_product(self.carry_velocity[None], self.entering, s)
        return y + self.rest


class PreparedChunk(eqx.Module):
    """What of a chunk does not depend on the memory."""

    keys: PreparedRows  # with c - v as the rest: what they read is B
    queries: PreparedRows
    lower: Float[Array, "chunk chunk"]  # L
    inverse: Float[Array, "chunk chunk"]  # (I + L)^-1
    scores: Float[Array, "chunk chunk"]  # what is left of each write at each query
    theta: Float[Array, " chunk"]
    end: ChunkDecay  # of one position, the last

    def affine_map(self, *, with_velocity: bool) -> AffineMap:
        """What the chunk does to the weights, and to the velocity below them.

        Its errors are `(I + L)^-1 (G X + c - v)` with `G = [A k, f k]`, which writes
        at `W = [H k, r k]` of the chunk's end take to the next one, so that

            C = -W^T diag(theta) (I + L)^-1 G
            O = -W^T diag(theta) (I + L)^-1 (c - v)
        """
        keys, end = self.keys.entering, self.end
        kept = end.carry_weights[:, None]
        met, written = [self.keys.carry_weights], [end.write_weights[0]]
        if with_velocity:
            of_velocity = jnp.append(jnp.zeros_like(kept[0]), end.velocity_carry)
            kept = jnp.stack([jnp.append(kept, end.carry_velocity), of_velocity])
            met.append(self.keys.carry_velocity)
            written.append(end.velocity_write)
        right = jnp.concatenate(
            [*(factor[:, None] * keys for factor in met), self.keys.rest], axis=1
        )
        errors = solve_unit_lower(self.lower, self.inverse, right)
        writes = jnp.concatenate([w[:, None] * keys for w in written], axis=1)
        change = -(writes.T @ (self.theta[:, None] * errors))
        n_rows = writes.shape[1]
        return AffineMap(kept, change[:, :n_rows], change[:, n_rows:])
