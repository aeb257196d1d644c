"""From the stream to what a rule is given: queries, keys, values and gates.

Queries, keys and values are projections with a causal depthwise convolution and SiLU;
queries and keys have unit norm (Titans, section 4.4). By option values have no SiLU, as
those of attention have none, or a norm of their own. Gates are functions of the token.
Entries of the stream beyond 1e9 count as that: sums of larger ones may not be finite.

With `target="next"` the value of token `t` belongs to the key of token `t - 1`, so a
memory learns to predict what follows (FwPKM, arXiv 2601.00671, stores the key of a
token with the value of the next; here the pair is written when its value is known, so
nothing is read ahead). The first token of a sequence has no key before it: the key is
zero, and a zero key writes nothing.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from titans_eqx.errors import check_option
from titans_eqx.memory.gates import Gates
from titans_eqx.memory.head_axis import HEAD_AXIS
from titans_eqx.memory.inputs import GateSpec, MemoryInputs
from titans_eqx.nn.conv import Activation, ConvProjection, KernelStart, delayed_rows
from titans_eqx.nn.documents import Documents
from titans_eqx.nn.norm import bounded, unit_norm
from titans_eqx.nn.padding import Padding
from titans_eqx.nn.precision import at_least_float32


class ProjectionState(eqx.Module):
    """What the projections keep for the next token."""

    query: Float[Array, "conv_state_len d_model"]
    key: Float[Array, "conv_state_len d_model"]
    value: Float[Array, "conv_state_len d_model"]
    previous_key: Float[Array, "_ d_model"]  # one row with target="next", else none


class MemoryProjections(eqx.Module):
    """Projections and gates of several memories side by side."""

    query: ConvProjection
    key: ConvProjection
    value: ConvProjection
    gates: Gates

    d_model: int = eqx.field(static=True)
    n_heads: int = eqx.field(static=True)
    target: Literal["same", "next"] = eqx.field(static=True)
    value_norm: bool = eqx.field(static=True)

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        gate_specs: Mapping[str, GateSpec],
        *,
        kernel_size: int,
        share_gates: bool,
        target: Literal["same", "next"],
        key_start: KernelStart,
        query_start: Literal["random", "keys"],
        value_activation: Activation,
        value_norm: bool,
        key: PRNGKeyArray,
    ) -> None:
        """Build the maps.

        Args:
            d_model: Width of the stream; a multiple of `n_heads`.
            n_heads: Memories side by side.
            gate_specs: The gates of the rule.
            kernel_size: Tokens that the convolutions see; 1 = no convolution.
            share_gates: Whether the memory layers of a head share their gates.
            target: Whose value a key is stored with: that of its own token, or of the
                next one.
            key_start: How the convolutions of keys and queries start; see `CausalConv`.
            query_start: Whether the map of the queries starts at random, or as a copy
                of that of the keys.
            value_activation: What follows the convolution of the values.
            value_norm: Whether each head's value has unit mean square.
            key: Random key.
        """
        check_option("target", target, "same", "next")
        check_option("key_start", key_start, "token", "context")
        check_option("query_start", query_start, "random", "keys")
        check_option("value_activation", value_activation, "silu", "none")
        gates_key, query_key, key_key, value_key = jr.split(key, 4)
        build = partial(ConvProjection, d_model, kernel_size)
        self.query = build(start=key_start, key=query_key)
        self.key = build(start=key_start, key=key_key)
        self.value = build(activation=value_activation, key=value_key)
        if query_start == "keys":
            self.query = jax.tree.map(jnp.copy, self.key)
        self.gates = Gates(
            d_model, n_heads, gate_specs, is_shared=share_gates, key=gates_key
        )
        self.d_model = d_model
        self.n_heads = n_heads
        self.target = target
        self.value_norm = value_norm

    def init_state(self) -> ProjectionState:
        """Before the first token there was nothing."""
        key = self.key.conv.init_state()
        n_previous = 1 if self.target == "next" else 0
        return ProjectionState(
            query=self.query.conv.init_state(),
            key=key,
            value=self.value.conv.init_state(),
            previous_key=jnp.zeros((n_previous, self.d_model), key.dtype),
        )

    def __call__(
        self,
        x: Float[Array, "positions d_model"],
        state: ProjectionState,
        padding: Padding,
        documents: Documents | None = None,
        fresh: ProjectionState | None = None,
    ) -> tuple[MemoryInputs, ProjectionState]:
        """What the rule is given, with heads as second axis.

        Args:
            x: Positions.
            state: What the positions before them left.
            padding: Which positions are real.
            documents: Where they start anew, if they do.
            fresh: What is kept before a document; needed with documents.
        """
        fresh = state if fresh is None else fresh  # without documents not looked at
        x = bounded(x)
        queries, query_state = self.query(
            x, state.query, padding, documents, fresh.query
        )
        keys, key_state = self.key(x, state.key, padding, documents, fresh.key)
        values, value_state = self.value(
            x, state.value, padding, documents, fresh.value
        )
        (keys, *_), previous_key = delayed_rows(
            keys, state.previous_key, padding, documents, fresh.previous_key
        )

        def one_head(*arrays: PyTree[Array]) -> MemoryInputs:
            return MemoryInputs(*arrays)

        inputs = jax.vmap(one_head, in_axes=HEAD_AXIS, out_axes=HEAD_AXIS)(
            unit_norm(self._split_heads(queries)),
            unit_norm(self._split_heads(keys)),
            self._head_values(values),
            self.gates(x),
        )
        return inputs, ProjectionState(
            query_state, key_state, value_state, previous_key
        )

    def queries(
        self,
        x: Float[Array, "positions d_model"],
        query_state: Float[Array, "conv_state_len d_model"],
        padding: Padding,
    ) -> tuple[
        Float[Array, "positions heads d"], Float[Array, "conv_state_len d_model"]
    ]:
        """The queries alone, for reads that do not write."""
        queries, query_state = self.query(bounded(x), query_state, padding)
        return unit_norm(self._split_heads(queries)), query_state

    def _head_values(
        self, values: Float[Array, "positions d_model"]
    ) -> Float[Array, "positions heads d"]:
        values = self._split_heads(values)
        if not self.value_norm:
            return values
        return math.sqrt(values.shape[-1]) * unit_norm(values)

    def _split_heads(
        self, x: Float[Array, "positions d_model"]
    ) -> Float[Array, "positions heads d"]:
        pattern = "positions (heads d) -> positions heads d"
        return at_least_float32(rearrange(x, pattern, heads=self.n_heads))
