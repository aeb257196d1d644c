"""Scores of rows of any length, read as streams in constant memory."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from titans_eqx.data import UNSCORED
from titans_eqx.models import ModelState, TitansLM
from titans_eqx.sharding.mesh import (
    BATCH,
    REPLICATED,
    batch_sharding,
    build_mesh,
    replicated,
)

PIECE_LEN: Final = 512  # tokens of each row that are read at once


Scorer: TypeAlias = Callable[
    [Iterable[np.ndarray]], Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]
]
"""Gives targets, losses and correctness for rows; see `StreamScorer.__call__`."""


class StreamScorer:
    """A model that scores rows, several side by side, spread over the devices."""

    def __init__(self, model: TitansLM, batch_size: int) -> None:
        """Place the model on all devices that divide the batch.

        Args:
            model: The model.
            batch_size: Rows side by side.
        """
        self._batch_size = batch_size
        self._mesh = build_mesh(0, batch_size)
        arrays, statics = eqx.partition(model, eqx.is_array)
        self._arrays = jax.device_put(arrays, replicated(self._mesh))

        def start(arrays: PyTree[Array]) -> ModelState:
            state = eqx.combine(arrays, statics).init_state()
            return jax.tree.map(lambda x: jnp.stack([x] * batch_size), state)

        def read(
            arrays: PyTree[Array], state: ModelState, piece: Int[Array, "batch 2 seq"]
        ) -> tuple[ModelState, Float[Array, "batch seq"], Bool[Array, "batch seq"]]:
            model = eqx.combine(arrays, statics)
            logits, state = jax.vmap(model)(piece[:, 0], state)
            targets = piece[:, 1]
            losses = optax.softmax_cross_entropy_with_integer_labels(
                logits.astype(jnp.float32), jnp.maximum(targets, 0)
            )
            return state, losses, jnp.argmax(logits, axis=-1) == targets

        self._start = jax.jit(start, out_shardings=batch_sharding(self._mesh))
        self._read = jax.jit(
            jax.shard_map(
                read,
                mesh=self._mesh,
                in_specs=(REPLICATED, BATCH, BATCH),
                out_specs=(BATCH, BATCH, BATCH),
            ),
            donate_argnums=1,
        )

    def __call__(
        self, rows: Iterable[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Score rows, each as a stream of its own.

        Args:
            rows: Tokens and targets (see `titans_eqx.data.rows`), of equal lengths.

        Yields:
            For each row its targets, the loss of each prediction in nats (meaningless
            where the target is `UNSCORED`), and whether the likeliest token was right.
        """
        iterator = iter(rows)
        while batch := list(islice(iterator, self._batch_size)):
            losses, is_correct = self._score(batch)
            for row, *scores in zip(batch, losses, is_correct, strict=False):
                yield row[1], *scores

    def _score(self, batch: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        length = batch[0].shape[1]
        piece_len = min(PIECE_LEN, length)
        n_pieces = -(-length // piece_len)
        padded = np.full((self._batch_size, 2, n_pieces * piece_len), 0, np.int32)
        padded[:, 1] = UNSCORED
        padded[: len(batch), :, :length] = np.stack(batch)
        state, scores = self._start(self._arrays), []
        for piece in np.split(padded, n_pieces, axis=2):
            placed = jax.device_put(piece, batch_sharding(self._mesh))
            state, *piece_scores = self._read(self._arrays, state, placed)
            scores.append([np.asarray(x) for x in piece_scores])
        losses, is_correct = (
            np.concatenate(parts, axis=1)[:, :length]
            for parts in zip(*scores, strict=True)
        )
        return losses, is_correct
