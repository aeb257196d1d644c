"""Scores of examples of any length, read as streams in constant device memory."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from titans_eqx.data.example import Example
from titans_eqx.generation.prefill import BLOCK_LEN
from titans_eqx.models import ModelState, TitansLM
from titans_eqx.nn.vmap import vmap
from titans_eqx.sharding.mesh import (
    BATCH,
    REPLICATED,
    batch_sharding,
    build_mesh,
    replicated,
)
from titans_eqx.terminal import phase
from titans_eqx.training.accumulate import Inputs, map_parts, most_tokens_at_once
from titans_eqx.training.loss import Batch, TokenLoss, token_loss


class Scores(NamedTuple):
    """How well the predictions of an example fit its targets."""

    loss: np.ndarray  # nats, (seq,); 0 where the mask of the example is False
    is_correct: np.ndarray  # bool, (seq,)


Scorer: TypeAlias = Callable[[Iterable[Example]], Iterator[Scores]]
"""Scores of each example, in order; see `StreamScorer`."""


class StreamScorer:
    """A model that scores several examples at once, spread over the devices."""

    def __init__(
        self, model: TitansLM, batch_size: int, *, forget_every: int = 0
    ) -> None:
        """Place the model on as many devices as divide the batch.

        Args:
            model: The model.
            batch_size: Examples that are read at once.
            forget_every: After so many tokens, again and again, the memories start
                anew (see `Backbone.forget`), and nothing else; 0 for never.
        """
        self._batch_size = batch_size
        self._forget_every = forget_every
        self._mesh = build_mesh(batch_size)
        arrays, static = eqx.partition(model, eqx.is_array)
        self._arrays = jax.device_put(arrays, replicated(self._mesh))

        def start(arrays: PyTree[Array]) -> ModelState:
            state = eqx.combine(arrays, static).init_state()
            return jax.tree.map(lambda x: jnp.stack([x] * batch_size), state)

        def read(
            arrays: PyTree[Array], state: ModelState, block: Batch
        ) -> tuple[ModelState, TokenLoss]:
            model = eqx.combine(arrays, static)

            def read_rows(inputs: Inputs) -> tuple[ModelState, TokenLoss]:
                block, state = inputs
                logits, state = vmap(model)(block["inputs"], state)
                return state, token_loss(logits, block["targets"], block["mask"])

            at_once = most_tokens_at_once(self._mesh)
            return map_parts(read_rows, (block, state), tokens_at_once=at_once)

        def forget(arrays: PyTree[Array], state: ModelState) -> ModelState:
            return jax.vmap(eqx.combine(arrays, static).forget)(state)

        self._start = jax.jit(start, out_shardings=batch_sharding(self._mesh))
        self._read = self._spread(read, (REPLICATED, BATCH, BATCH))
        self._forget = self._spread(forget, (REPLICATED, BATCH))

    def __call__(self, examples: Iterable[Example]) -> Iterator[Scores]:
        """Score examples of equal lengths, each as a stream of its own."""
        iterator = iter(examples)
        while batch := list(islice(iterator, self._batch_size)):
            yield from self._score(batch)

    def _spread(self, function: Callable, in_specs: tuple) -> Callable:
        """Compiled for all devices; the state, its second argument, is used up."""
        spread = jax.shard_map(
            function, mesh=self._mesh, in_specs=in_specs, out_specs=BATCH
        )
        return jax.jit(spread, donate_argnums=1)

    def _score(self, examples: list[Example]) -> list[Scores]:
        length = examples[0]["inputs"].size
        blocks = _blocks(length, self._forget_every)
        # Zeros fill up the batch and the last block; nothing of them is scored.
        fill = (0, self._batch_size - len(examples)), (0, blocks[-1][1] - length)
        batch = jax.tree.map(lambda *xs: np.pad(np.stack(xs), fill), *examples)
        state, parts = self._start(self._arrays), []
        for first, stop in blocks:
            if self._forget_every and first % self._forget_every == 0:
                state = self._forget(self._arrays, state)
            block = jax.tree.map(lambda x, i=first, j=stop: x[:, i:j], batch)
            block = jax.device_put(block, batch_sharding(self._mesh))
            state, scores = self._read(self._arrays, state, block)
            parts.append(jax.device_get(Scores(scores.loss, scores.is_correct)))
        whole = jax.tree.map(lambda *xs: np.concatenate(xs, axis=1), *parts)
        return [
            jax.tree.map(lambda x, i=i: x[i, :length], whole)
            for i in range(len(examples))
        ]


def _blocks(length: int, forget_every: int) -> list[tuple[int, int]]:
    """Where the parts of an example that are read at once start and stop.

    None is longer than `BLOCK_LEN`, none goes on after the memories start anew, and
    almost all are of one length, for few programs. The last may reach over the end.
    """
    span = forget_every or (
        length if length < BLOCK_LEN else -(-length // BLOCK_LEN) * BLOCK_LEN
    )
    block_len = -(-span // -(-span // BLOCK_LEN))
    return [
        (first, min(first + block_len, start + span))
        for start in range(0, length, span)
        for first in range(start, min(start + span, length), block_len)
    ]


def show_progress(scorer: Scorer) -> Scorer:
    """The same scorer, with a phase on the terminal for each call."""

    def score(examples: Iterable[Example]) -> Iterator[Scores]:
        examples = list(examples)
        length = examples[0]["inputs"].size
        name = f"reading {len(examples):,} examples of {length:,} tokens"
        with phase(name, total=len(examples)) as advance:
            for scores in scorer(examples):
                yield scores
                advance(1)

    return score
