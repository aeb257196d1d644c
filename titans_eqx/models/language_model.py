"""The language model: embedding, backbone, head."""

from typing import Final, TypeAlias

import equinox as eqx
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from titans_eqx.memory import MemoryStats
from titans_eqx.models.backbone import Backbone, BackboneState
from titans_eqx.nn.linear import linear_rows, map_rows

# Small beside what the layers add, or a tied head would start by predicting its own
# input.
EMBEDDING_SCALE: Final = 0.02

ModelState: TypeAlias = BackboneState


class TitansLM(eqx.Module):
    """A causal language model over token ids; every block pattern is this module."""

    embedding: Float[Array, "vocab d_model"]
    backbone: Backbone
    head: eqx.nn.Linear | None  # None: tied to the embedding

    def __init__(
        self,
        backbone: Backbone,
        *,
        d_model: int,
        vocab_size: int,
        tied_embeddings: bool = True,
        key: PRNGKeyArray,
    ) -> None:
        """Put token embeddings around a backbone.

        Args:
            backbone: What runs between them, of width `d_model`.
            d_model: Width of the stream.
            vocab_size: Token ids.
            tied_embeddings: Whether output and input embeddings are one matrix.
            key: Random key.
        """
        embedding_key, head_key = jr.split(key)
        shape = (vocab_size, d_model)
        self.embedding = EMBEDDING_SCALE * jr.normal(embedding_key, shape)
        self.backbone = backbone
        self.head = (
            None
            if tied_embeddings
            else eqx.nn.Linear(d_model, vocab_size, use_bias=False, key=head_key)
        )

    def init_state(self) -> ModelState:
        """The state before the first token: fresh memories, empty windows."""
        return self.backbone.init_state()

    def __call__(
        self,
        tokens: Int[Array, " seq"],
        state: ModelState | None = None,
        *,
        document_starts: Int[Array, " n_starts"] | None = None,
    ) -> tuple[Float[Array, "seq vocab"], ModelState]:
        """Predict the next token at every token of a part of a sequence.

        Args:
            tokens: Token ids, at least one. They are not checked: one outside the
                vocabulary is read as another token.
            state: What an earlier call returned, to go on with its stream; None for a
                fresh sequence.
            document_starts: Where other sequences start, if the tokens are several; see
                `Backbone.__call__`.

        Returns:
            Logits for the token after each one, and the state after the last.
        """
        x, state = self.features(tokens, state, document_starts=document_starts)
        return self.logits(x), state

    def features(
        self,
        tokens: Int[Array, " seq"],
        state: ModelState | None = None,
        *,
        document_starts: Int[Array, " n_starts"] | None = None,
    ) -> tuple[Float[Array, "seq d_model"], ModelState]:
        """`__call__` without the head: what `logits` makes predictions of."""
        return self.backbone(self.embed(tokens), state, document_starts=document_starts)

    def logits(self, x: Float[Array, "*seq d_model"]) -> Float[Array, "*seq vocab"]:
        """The head: the features of tokens as scores of the token after each."""
        if self.head is None:
            return map_rows(self.embedding.astype(x.dtype), x)
        return linear_rows(self.head, x)

    def restart(self, state: ModelState, is_start: Bool[Array, ""]) -> ModelState:
        """The state to read a token with that may start another sequence.

        See `Backbone.restart`.
        """
        return self.backbone.restart(state, is_start)

    def forget(self, state: ModelState) -> ModelState:
        """The state with fresh memories; see `Backbone.forget`."""
        return self.backbone.forget(state)

    def step(
        self, token: Int[Array, ""], state: ModelState
    ) -> tuple[Float[Array, " vocab"], ModelState]:
        """Read one token, in time and memory that do not depend on its position."""
        x, state = self.backbone.step(self.embed(token), state)
        return self.logits(x), state

    def probe(
        self, token: Int[Array, ""], state: ModelState
    ) -> tuple[Float[Array, " vocab"], ModelState, dict[int, MemoryStats]]:
        """`step`, with what the memories do; by layer, those that have one."""
        x, state, stats = self.backbone.probe(self.embed(token), state)
        return self.logits(x), state, stats

    def unstack(self) -> "TitansLM":
        """The same model for loops over tokens; see `Backbone.unstack`."""
        return eqx.tree_at(lambda model: model.backbone, self, self.backbone.unstack())

    def unstack_state(self, state: ModelState) -> ModelState:
        """A state of this model as one of `unstack()`."""
        return self.backbone.unstack_state(state)

    def stack_state(self, state: ModelState) -> ModelState:
        """The inverse of `unstack_state`."""
        return self.backbone.stack_state(state)

    def embed(self, tokens: Int[Array, "*seq"]) -> Float[Array, "*seq d_model"]:
        """What the first block is given."""
        # Not in the numbers of the blocks, which may be narrower: the gradient of the
        # embedding is a sum over all places of a token, and would not be exact.
        return self.embedding[tokens]
