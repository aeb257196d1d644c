"""A stream in progress: read some text, write some, read on.

For programs that talk to a model block by block, such as `titans-generate`. Texts of
every length share a few compiled functions.
"""

from collections.abc import Callable, Iterator
from typing import Final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from titans_eqx.generation.generate import extend
from titans_eqx.generation.prefill import BLOCK_LEN, prefill_padded
from titans_eqx.generation.sampling import Sampling
from titans_eqx.models import ModelState, TitansLM

WRITE_LEN: Final = 16  # tokens drawn at once, and so shown at once


class Stream:
    """A model and the state of its stream. Mutable, unlike the model."""

    def __init__(self, model: TitansLM, state: ModelState | None = None) -> None:
        """Start a fresh stream, or go on from a state."""
        self.model = model
        self.state = model.init_state() if state is None else state
        self._logits: Float[Array, " vocab"] | None = None

    def read(
        self, tokens: np.ndarray, on_progress: Callable[[int], None] | None = None
    ) -> None:
        """Read tokens, in constant memory.

        Args:
            tokens: Token ids; none is fine.
            on_progress: Called with the number of tokens read since the last call.
        """
        for first in range(0, len(tokens), BLOCK_LEN):
            block = tokens[first : first + BLOCK_LEN]
            if len(block) == BLOCK_LEN:
                self._logits, self.state = _read_block(
                    self.model, jnp.asarray(block, jnp.int32), self.state
                )
            else:
                padded = np.zeros(BLOCK_LEN, np.int32)
                padded[: len(block)] = block
                count = jnp.asarray(len(block), jnp.int32)
                self._logits, self.state = _read_padded(
                    self.model, jnp.asarray(padded), count, self.state
                )
            if on_progress is not None:
                jax.block_until_ready(self._logits)
                on_progress(len(block))

    def write(
        self, n_tokens: int, *, key: PRNGKeyArray, sampling: Sampling
    ) -> Iterator[np.ndarray]:
        """Draw tokens, a few at a time; the stream has read what it wrote.

        Args:
            n_tokens: How many tokens, unless a stop token comes first.
            key: The same key and stream draw the same tokens.
            sampling: How tokens are drawn.

        Yields:
            The next tokens; a stop token is the last one.

        Raises:
            ValueError: If nothing was read yet, so that there is nothing to go on from.
        """
        if self._logits is None:
            raise ValueError("a stream must read something before it can write.")
        for first in range(0, n_tokens, WRITE_LEN):
            count = min(WRITE_LEN, n_tokens - first)
            tokens, self._logits, self.state = _write(
                self.model,
                self._logits,
                self.state,
                jr.fold_in(key, first),
                sampling,
                count,
            )
            tokens = np.asarray(tokens)
            stops = np.flatnonzero(np.isin(tokens, sampling.stop_tokens))
            if stops.size > 0:
                yield tokens[: stops[0] + 1]
                return
            yield tokens


@eqx.filter_jit
def _read_block(
    model: TitansLM, tokens: Int[Array, " seq"], state: ModelState
) -> tuple[Float[Array, " vocab"], ModelState]:
    logits, state = model(tokens, state)
    return logits[-1], state


_read_padded = eqx.filter_jit(prefill_padded)
_write = eqx.filter_jit(extend)
