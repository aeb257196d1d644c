"""The language model: embedding, layers, head."""

from typing import Final, TypeAlias

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from titans_eqx.config import ModelConfig
from titans_eqx.models.build import layer_kinds
from titans_eqx.models.backbone import (
    LayerStack,
    Visit,
    group_layers,
    join_repeats,
    split_repeats,
)

# Small beside what the layers add, or a tied head would start by predicting its own
# input.
EMBEDDING_SCALE: Final = 0.02

ModelState: TypeAlias = tuple[PyTree[Array], ...]
"""The states of all layers, an entry for each stack; its size never changes."""


class TitansLM(eqx.Module):
    """A causal language model over token ids; every variant is this module."""

    embedding: Float[Array, "vocab d_model"]
    stacks: tuple[LayerStack, ...]
    norm: eqx.nn.RMSNorm
    head: eqx.nn.Linear | None  # None: tied to the embedding

    def __init__(self, config: ModelConfig, *, key: PRNGKeyArray) -> None:
        """Build the model that a config describes.

        Args:
            config: Sizes and options.
            key: Random key.
        """
        groups = group_layers(layer_kinds(config))
        embedding_key, head_key, *keys = jr.split(key, 2 + len(groups))
        self.embedding = EMBEDDING_SCALE * jr.normal(
            embedding_key, (config.vocab_size, config.d_model)
        )
        self.stacks = tuple(
            LayerStack(kinds, n_repeats, config, key=k)
            for (kinds, n_repeats), k in zip(groups, keys, strict=True)
        )
        self.norm = eqx.nn.RMSNorm(config.d_model, use_bias=False)
        self.head = (
            None
            if config.tied_embeddings
            else eqx.nn.Linear(
                config.d_model, config.vocab_size, use_bias=False, key=head_key
            )
        )

    def init_state(self) -> ModelState:
        """The state before the first token: fresh memories, empty windows."""
        return tuple(stack.init_state() for stack in self.stacks)

    def __call__(
        self, tokens: Int[Array, " seq"], state: ModelState | None = None
    ) -> tuple[Float[Array, "seq vocab"], ModelState]:
        """Predict the next token at every token of a piece of a sequence.

        Args:
            tokens: Token ids, at least one.
            state: What an earlier call returned, to go on with its stream; None for a
                fresh sequence.

        Returns:
            Logits for the token after each one, and the state after the last.
        """
        x, state = self.walk(
            lambda block, x, state: block(x, state), jax.vmap(self.embed)(tokens), state
        )
        return jax.vmap(self.predict)(x), state

    def step(
        self, token: Int[Array, ""], state: ModelState
    ) -> tuple[Float[Array, " vocab"], ModelState]:
        """Read one token, in time and memory that do not depend on its position.

        Args:
            token: Token id.
            state: State before it.

        Returns:
            Logits for the next token, and the next state.
        """
        x, state = self.walk(
            lambda block, x, state: block.step(x, state), self.embed(token), state
        )
        return self.predict(x), state

    def walk(
        self, visit: Visit, x: Float[Array, "*seq d_model"], state: ModelState | None
    ) -> tuple[Float[Array, "*seq d_model"], tuple[PyTree, ...]]:
        """Visit all layers in order; see `LayerStack.walk`.

        Args:
            visit: What is done at each layer.
            x: The residual stream before the first layer.
            state: The states of all layers; None gives each block None.

        Returns:
            The stream after the last layer, and what was kept of each stack.
        """
        states = (None,) * len(self.stacks) if state is None else state
        after = []
        for stack, stack_states in zip(self.stacks, states, strict=True):
            x, kept = stack.walk(visit, x, stack_states)
            after.append(kept)
        return x, tuple(after)

    def apart(self) -> "TitansLM":
        """The same model with each layer in a stack of its own.

        For loops over tokens: a step then reads the weights where they lie. Its states
        are those of `split_state`.
        """
        layers = tuple(layer for stack in self.stacks for layer in stack.apart())
        return eqx.tree_at(lambda model: model.stacks, self, layers)

    def split_state(self, state: ModelState) -> ModelState:
        """A state of this model as one of `apart()`.

        Args:
            state: A state, stacked as this model's layers are.

        Returns:
            The same state, an entry for each layer.
        """
        return tuple(part for stacked in state for part in split_repeats(stacked))

    def join_state(self, state: ModelState) -> ModelState:
        """The inverse of `split_state`.

        Args:
            state: A state of `apart()`.

        Returns:
            The same state, stacked as this model's layers are.
        """
        parts = iter(state)
        return tuple(
            join_repeats([next(parts) for _ in stack.apart()]) for stack in self.stacks
        )

    def embed(self, token: Int[Array, ""]) -> Float[Array, " d_model"]:
        """The stream at a token, before the first layer."""
        return self.embedding[token]

    def predict(self, x: Float[Array, " d_model"]) -> Float[Array, " vocab"]:
        """Logits for the next token, from the stream after the last layer."""
        x = self.norm(x)
        return self.embedding @ x if self.head is None else self.head(x)


def build_model(config: ModelConfig, *, key: PRNGKeyArray) -> TitansLM:
    """Build the model that a config describes.

    Args:
        config: Sizes and options.
        key: Random key.

    Returns:
        A model with freshly drawn weights.
    """
    return TitansLM(config, key=key)
