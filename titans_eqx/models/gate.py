"""How a memory read joins the attention stream: the paper's circled product.

The paper allows any non-linear gating (Titans, Eqs. 25 and 28). A purely multiplicative
form lets the gradient reach the memory only through the attention output, and stalls on
recall tasks; a path that adds the read does not.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from titans_eqx.errors import check_option

GateKind = Literal["add", "mix", "multiply"]


class MemoryGate(eqx.Module):
    """Join an attention output `y` and a memory read `m`, token by token.

    - `"add"`: `y + sigmoid(g) * m`
    - `"mix"`: `(1 - sigmoid(g)) * norm(y) + sigmoid(g) * norm(m)`
    - `"multiply"`: `norm(y) * sigmoid(norm(m))`, the literal product

    `g` is a learned vector and both norms have learned scales.
    """

    attention_norm: eqx.nn.RMSNorm | None
    memory_norm: eqx.nn.RMSNorm | None
    gate: Float[Array, " d_model"] | None

    kind: GateKind = eqx.field(static=True)

    def __init__(self, d_model: int, kind: GateKind) -> None:
        """Start half open; needs no random key.

        Raises:
            ValueError: If there is no such kind.
        """
        check_option("kind", kind, "add", "mix", "multiply")
        has_norms, has_gate = kind != "add", kind != "multiply"
        self.attention_norm = (
            eqx.nn.RMSNorm(d_model, use_bias=False) if has_norms else None
        )
        self.memory_norm = (
            eqx.nn.RMSNorm(d_model, use_bias=False) if has_norms else None
        )
        self.gate = jnp.zeros(d_model) if has_gate else None
        self.kind = kind

    def __call__(
        self, y: Float[Array, " d_model"], m: Float[Array, " d_model"]
    ) -> Float[Array, " d_model"]:
        """Join the two streams at one token."""
        if self.attention_norm is not None and self.memory_norm is not None:
            y, m = self.attention_norm(y), self.memory_norm(m)
        if self.gate is None:
            return y * jax.nn.sigmoid(m)
        weight = jax.nn.sigmoid(self.gate)
        return (y if self.kind == "add" else (1 - weight) * y) + weight * m
