"""A stream in progress: read some text, write some, read on.

For programs that talk to a model block by block, such as `titans-generate`. Texts of
every length share a few compiled functions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from titans_eqx.generation.generate import check_token_ids, extend
from titans_eqx.generation.prefill import BLOCK_LEN, prefill_padded
from titans_eqx.generation.sampling import Sampling
from titans_eqx.models import ModelState, TitansLM

STEPS_LEN: Final = 16  # tokens drawn at once, and so shown at once
SHORT_LEN: Final = 128  # a text up to this length is read like one that is drawn
N_STOPS: Final = 8  # stop tokens for which there is room in any case


class Stream:
    """A model and the state of its stream. Mutable, unlike the model."""

    def __init__(self, model: TitansLM, state: ModelState | None = None) -> None:
        """Start a fresh stream, or go on from a state."""
        self.model = model
        self._logits, self.state = _start(model, state)
        self._has_read = False

    def read(
        self, tokens: np.ndarray, on_progress: Callable[[int], None] | None = None
    ) -> None:
        """Read tokens, in constant memory.

        Args:
            tokens: Token ids; none is fine.
            on_progress: Called with the number of tokens read since the last call.

        Raises:
            ValueError: If a token is outside the vocabulary; then none is read.
        """
        check_token_ids(self.model, tokens)
        for first in range(0, len(tokens), BLOCK_LEN):
            block = np.asarray(tokens[first : first + BLOCK_LEN], np.int32)
            if len(block) == BLOCK_LEN:
                self._logits, self.state = _read_block(
                    self.model, jnp.asarray(block), self.state
                )
            elif len(block) > SHORT_LEN:
                self._logits, self.state = _read_padded(
                    self.model,
                    jnp.asarray(np.pad(block, (0, BLOCK_LEN - len(block)))),
                    jnp.asarray(len(block), jnp.int32),
                    self.state,
                )
            else:
                # The program that writes serves here too: most prompts are short, and
                # one program fewer to load saves more time than reading at once.
                for start in range(0, len(block), STEPS_LEN):
                    part = block[start : start + STEPS_LEN]
                    self._take_steps(len(part), 0, jr.key(0), Sampling(), part)
            self._has_read = True
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
        if not self._has_read:
            raise ValueError("a stream must read something before it can write.")
        for first in range(0, n_tokens, STEPS_LEN):
            count = min(STEPS_LEN, n_tokens - first)
            tokens = self._take_steps(count, first, key, sampling)
            stops = np.flatnonzero(np.isin(tokens, sampling.stop_tokens))
            if stops.size > 0:
                yield tokens[: stops[0] + 1]
                return
            yield tokens

    def _take_steps(
        self,
        n_tokens: int,
        first: int,
        key: PRNGKeyArray,
        sampling: Sampling,
        given: Sequence[int] | np.ndarray = (),
    ) -> np.ndarray:
        """Read the tokens that are given, or draw some: one compiled function."""
        forced = np.full(STEPS_LEN, -1, np.int32)
        forced[: len(given)] = given
        tokens, self._logits, self.state = _take_steps(
            self.model,
            self._logits,
            self.state,
            key,
            jnp.asarray(first, jnp.int32),
            sampling.traced(N_STOPS),
            jnp.asarray(n_tokens, jnp.int32),
            jnp.asarray(forced),
        )
        return np.asarray(tokens)[:n_tokens]


@eqx.filter_jit
def _start(
    model: TitansLM, state: ModelState | None
) -> tuple[Float[Array, " vocab"], ModelState]:
    """Logits that nothing reads, and a state, of one kind whatever they come from."""
    state = model.init_state() if state is None else state
    kind = jax.eval_shape(lambda: model.step(jnp.zeros((), jnp.int32), state)[0])
    return jnp.zeros(kind.shape, kind.dtype), state


@eqx.filter_jit
def _read_block(
    model: TitansLM, tokens: Int[Array, " seq"], state: ModelState
) -> tuple[Float[Array, " vocab"], ModelState]:
    logits, state = model(tokens, state)
    return logits[-1], state


_read_padded = eqx.filter_jit(prefill_padded)


@eqx.filter_jit
def _take_steps(
    model: TitansLM,
    logits: Float[Array, " vocab"],
    state: ModelState,
    key: PRNGKeyArray,
    first: Int[Array, ""],
    sampling: Sampling,
    n_tokens: Int[Array, ""],
    given: Int[Array, " positions"],
) -> tuple[Int[Array, " positions"], Float[Array, " vocab"], ModelState]:
    key = jr.fold_in(key, first)
    return extend(
        model, logits, state, key, sampling, n_tokens, given.size, given=given
    )
