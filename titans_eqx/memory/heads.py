"""Several memories side by side, one for each head, from the stream to their reads."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.axes import HeadWeights, MemoryWeights
from titans_eqx.config.memory import HeadsConfig
from titans_eqx.errors import check_option
from titans_eqx.memory.blocks import (
    checked_block_len,
    next_chunk,
    scan_blocks,
    scan_documents,
)
from titans_eqx.memory.build import build_net, heads_options
from titans_eqx.memory.head_axis import heads_first, heads_last
from titans_eqx.memory.inputs import MemoryInputs
from titans_eqx.memory.loss import square_norm
from titans_eqx.memory.memory import MemoryStats
from titans_eqx.memory.net import AbstractMemoryNet, check_width
from titans_eqx.memory.projections import MemoryProjections, ProjectionState
from titans_eqx.memory.rule import AbstractRule, AbstractRuleState
from titans_eqx.memory.scan import scan_aligned, step_heads
from titans_eqx.nn.conv import Activation, KernelStart
from titans_eqx.nn.documents import Documents
from titans_eqx.nn.padding import Padding
from titans_eqx.nn.precision import at_least_float32
from titans_eqx.nn.vmap import vmap


class NeuralMemoryState(eqx.Module):
    """What memories carry along a stream; its size never changes."""

    heads: AbstractRuleState  # the rule's state of each head, stacked
    projections: ProjectionState


class MemoryHeads(eqx.Module):
    """Memories of one network and one rule, with their projections and gates."""

    projections: MemoryProjections
    initial_weights: HeadWeights  # M_0
    net: AbstractMemoryNet
    rule: AbstractRule

    block_len: int = eqx.field(static=True)

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int,
        net: AbstractMemoryNet,
        rule: AbstractRule,
        kernel_size: int = 4,
        share_gates: bool = False,
        target: Literal["same", "next"] = "same",
        initial_output: Literal["random", "zero"] = "random",
        key_start: KernelStart = "token",
        query_start: Literal["random", "keys"] = "random",
        value_activation: Activation = "silu",
        value_norm: bool = False,
        block_len: int | None = None,
        key: PRNGKeyArray,
    ) -> None:
        """Build the memories.

        Args:
            d_model: Width of the stream; a multiple of `n_heads`.
            n_heads: Memories side by side.
            net: Network of one memory, of width `d_model // n_heads`.
            rule: How memories are written and read.
            kernel_size: Tokens that the convolutions see; 1 = no convolution.
            share_gates: Whether the memory layers of a head share their gates.
            target: Whose value a key is stored with: that of its own token, or of the
                next one.
            initial_output: The last map of M_0: as the network draws it, or zero, so
                that a fresh memory adds nothing to what its network adds by itself.
            key_start: The convolutions of keys and queries: near the token itself, or
                at a random mix of the last `kernel_size` tokens.
            query_start: The map of the queries: random, or a copy of that of the keys.
            value_activation: What follows the convolution of the values; with none a
                value is a linear map of a few tokens.
            value_norm: Whether each head's value has unit mean square.
            block_len: Tokens taken in at once where a part of a stream may start or end
                anywhere, a divisor of the rule's chunk length; default that.
            key: Random key.

        Raises:
            ValueError: If the heads do not divide the width or blocks the chunk, the
                network has another width, or the rule cannot write it.
        """
        if n_heads < 1 or d_model % n_heads != 0:
            raise ValueError(
                f"memory.n_heads must divide d_model, got n_heads={n_heads} and "
                f"d_model={d_model}. Use a divisor of {d_model}."
            )
        check_option("initial_output", initial_output, "random", "zero")
        check_width(net, d_model // n_heads)
        projection_key, weight_key = jr.split(key)
        self.projections = MemoryProjections(
            d_model,
            n_heads,
            rule.gate_specs(net),
            kernel_size=kernel_size,
            share_gates=share_gates,
            target=target,
            key_start=key_start,
            query_start=query_start,
            value_activation=value_activation,
            value_norm=value_norm,
            key=projection_key,
        )
        *first, last = jax.vmap(net.init)(jr.split(weight_key, n_heads))
        last = jnp.zeros_like(last) if initial_output == "zero" else last
        self.initial_weights = (*first, last)
        self.net = net
        self.rule = rule
        self.block_len = checked_block_len(rule, block_len)

    @classmethod
    def from_config(
        cls,
        d_model: int,
        config: HeadsConfig,
        rule: AbstractRule,
        *,
        n_heads: int,
        block_len: int,
        key: PRNGKeyArray,
    ) -> "MemoryHeads":
        """The memories that a config describes, written and read by a rule."""
        return cls(
            d_model,
            n_heads=n_heads,
            net=build_net(max(1, d_model // n_heads), config),
            rule=rule,
            **heads_options(config),
            block_len=block_len,
            key=key,
        )

    def init_state(
        self, prefix: Float[Array, "n_persistent d_model"] | None = None
    ) -> NeuralMemoryState:
        """M_0, after the prefix if there is one; see `AbstractMemory.init_state`."""
        state = NeuralMemoryState(
            heads=jax.vmap(self.rule.init_state)(self._initial()),
            projections=self.projections.init_state(),
        )
        if prefix is None or prefix.shape[0] == 0:
            return state
        _, state = self.read_sequence(prefix, state)
        heads = jax.vmap(partial(next_chunk, self.rule))(state.heads)
        return NeuralMemoryState(heads, state.projections)

    def read_sequence(
        self, x: Float[Array, "seq d_model"], state: NeuralMemoryState
    ) -> tuple[Float[Array, "seq heads d"], NeuralMemoryState]:
        """Write and read from the start of a chunk on, in whole chunks."""
        padding = Padding.none(x.shape[0])
        form = partial(scan_aligned, padding=padding, block_len=self.block_len)
        return self.run(form, x, state, padding)

    def __call__(
        self,
        x: Float[Array, "seq d_model"],
        state: NeuralMemoryState,
        padding: Padding | None = None,
    ) -> tuple[Float[Array, "seq heads d"], NeuralMemoryState]:
        """Write and read a part of a sequence.

        Args:
            x: Tokens.
            state: Where the stream stands, anywhere in a chunk.
            padding: Says that the first position is the first of a block (see
                `block_len`), and which are real; None if that is not known.
        """
        if padding is None:
            n_tokens, offset = x.shape[0], state.heads.chunk_offset[0] % self.block_len
            padding = Padding.aligned(n_tokens, offset, self.block_len)
            reads, state = self(padding.pad(x), state, padding)
            return padding.unpad(reads, n_tokens), state
        is_whole = self.block_len == self.rule.chunk_len
        scan = scan_aligned if is_whole else scan_blocks
        form = partial(scan, padding=padding, block_len=self.block_len)
        return self.run(form, x, state, padding)

    def read_documents(
        self,
        x: Float[Array, "seq d_model"],
        documents: Documents,
        fresh: NeuralMemoryState,
        state: NeuralMemoryState | None,
    ) -> tuple[Float[Array, "seq heads d"], NeuralMemoryState]:
        """Write and read several documents; see `AbstractMemory.read_documents`."""
        layout = documents.layout(
            self.block_len,
            None if state is None else state.heads.chunk_offset[0] % self.block_len,
        )
        state = fresh if state is None else state
        inputs, projections = self.projections(
            x, state.projections, Padding.none(len(x)), documents, fresh.projections
        )
        form = partial(scan_documents, documents=documents, layout=layout)

        def one_head(
            inputs: MemoryInputs,
            state: AbstractRuleState,
            fresh: AbstractRuleState,
            initial: MemoryWeights,
        ) -> tuple[Float[Array, "seq d"], AbstractRuleState]:
            return form(self.rule, self.net, inputs, state, fresh, initial=initial)

        reads, heads = self._over_heads(one_head, inputs, state.heads, fresh.heads)
        return reads, NeuralMemoryState(heads, projections)

    def step(
        self, x: Float[Array, " d_model"], state: NeuralMemoryState
    ) -> tuple[Float[Array, "heads d"], NeuralMemoryState]:
        """Write and read one token."""
        token = Padding.none(1)
        inputs, projections = self.projections(x[None], state.projections, token)
        reads, heads = step_heads(
            self.rule,
            self.net,
            jax.tree.map(lambda leaf: leaf[0], inputs),
            state.heads,
            initial=self._initial(),
        )
        return reads, NeuralMemoryState(heads, projections)

    def run(
        self,
        form: Callable[..., tuple[Float[Array, "positions d"], AbstractRuleState]],
        x: Float[Array, "positions d_model"],
        state: NeuralMemoryState,
        padding: Padding,
    ) -> tuple[Float[Array, "positions heads d"], NeuralMemoryState]:
        """Project, and run one form of the rule on each head.

        Args:
            form: A function with the arguments of `scan_tokens`, for one head.
            x: Positions.
            state: Where the stream stands.
            padding: For the projections: which positions are real.
        """
        inputs, projections = self.projections(x, state.projections, padding)

        def one_head(
            inputs: MemoryInputs, state: AbstractRuleState, initial: MemoryWeights
        ) -> tuple[Float[Array, "positions d"], AbstractRuleState]:
            return form(self.rule, self.net, inputs, state, initial=initial)

        reads, heads = self._over_heads(one_head, inputs, state.heads)
        return reads, NeuralMemoryState(heads, projections)

    def probe(
        self, x: Float[Array, " d_model"], state: NeuralMemoryState
    ) -> MemoryStats:
        """What the memories do at a token, given the state before it."""
        inputs, _ = self.projections(x[None], state.projections, Padding.none(1))
        token = jax.tree.map(lambda leaf: leaf[0], inputs)
        _, after = self.step(x, state)

        def surprise_norm(token: MemoryInputs, head: AbstractRuleState) -> Array:
            return jnp.sqrt(square_norm(self.rule.surprise(self.net, token, head)))

        return MemoryStats(
            surprise=jax.vmap(surprise_norm)(token, state.heads),
            gates=token.gates,
            weight_norm=jnp.sqrt(jax.vmap(square_norm)(after.heads.weights)),
        )

    def _over_heads(
        self,
        one_head: Callable[..., tuple[Array, AbstractRuleState]],
        inputs: MemoryInputs,
        *states: AbstractRuleState,
    ) -> tuple[Float[Array, "positions heads d"], AbstractRuleState]:
        """A form of the rule on each head's inputs, states and M_0."""
        chunk_len = self.rule.chunk_len
        inputs = jax.tree.map(partial(heads_first, chunk_len=chunk_len), inputs)
        reads, heads = vmap(one_head)(inputs, *states, self._initial())
        return heads_last(reads, chunk_len), heads

    def _initial(self) -> HeadWeights:
        weights = self.rule.outer_gradient.initial(self.initial_weights)
        return jax.tree.map(at_least_float32, weights)
