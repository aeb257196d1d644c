"""The options of the update rule, shared by its two forms."""

from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from titans_eqx.config import MemoryConfig
from titans_eqx.memory.outer_gradient import GradientBoundary


@dataclass(frozen=True, kw_only=True)
class UpdateRule:
    """How a memory is written and read; both forms obey the same rule."""

    clip: float = (
        0.0  # largest surprise norm c that is written at full step; 0 = no limit
    )
    decay_towards: Literal["zero", "initial"] = "zero"  # where forgetting leads
    read: Literal["after", "before"] = "after"  # is the own write seen by the own read?
    boundary: GradientBoundary = field(default_factory=GradientBoundary)

    @classmethod
    def from_config(cls, config: MemoryConfig) -> "UpdateRule":
        """The rule that a config describes."""
        return cls(
            clip=config.clip,
            decay_towards=config.decay_towards,
            read=config.read,
            boundary=GradientBoundary(
                initial_memory=config.initial_memory,
                surprise=config.surprise,
                truncate_every=config.truncate_every,
            ),
        )

    def clip_scale(
        self, square_norm: Float[Array, "*tokens"]
    ) -> Float[Array, "*tokens"]:
        """The factor `min(1, c / |u_t|)` on the step of a token.

        It bounds what one token can write, so weights grow at most linearly with time
        and no finite input can overflow them.

        Args:
            square_norm: `|u_t|^2` over all memory layers.

        Returns:
            A factor in (0, 1] for each token, differentiable everywhere.
        """
        if self.clip == 0.0:
            return jnp.ones_like(square_norm)
        return jax.lax.rsqrt(jnp.maximum(1.0, square_norm / self.clip**2))
