"""Generation: read a prompt, then draw tokens one by one."""

import operator
from collections.abc import Sequence
from typing import Final, SupportsIndex, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from titans_eqx.generation.prefill import PADDED_BLOCK_LEN, prefill, prefill_padded
from titans_eqx.generation.sampling import Sampling
from titans_eqx.models import ModelState, TitansLM
from titans_eqx.nn.streams import STREAMS, any_stream, are_side_by_side
from titans_eqx.nn.tree import select
from titans_eqx.sharding.varying import select_seldom, while_loop

MIN_POSITIONS: Final = 16  # that a compiled function has for the tokens it draws

_Place: TypeAlias = tuple[Float[Array, " vocab"], ModelState]  # in a stream
_Carry: TypeAlias = tuple[
    Int[Array, ""], Bool[Array, ""], _Place, _Place | None, Int[Array, " positions"]
]


def generate(
    model: TitansLM,
    prompt_tokens: Int[Array, " seq"],
    n_tokens: SupportsIndex,
    *,
    key: PRNGKeyArray,
    state: ModelState | None = None,
    sampling: Sampling | None = None,
) -> tuple[Int[Array, " n_tokens"], ModelState]:
    """Go on from a prompt, at the same cost for each token however long the stream is.

    Compiled once for each prompt length, `n_tokens` rounded up to a power of two, and
    number of stop tokens.

    Args:
        model: The model.
        prompt_tokens: Token ids, at least one.
        n_tokens: How many tokens to draw.
        key: The same key draws the same tokens.
        state: State of the stream before the prompt; None for a fresh sequence.
        sampling: How tokens are drawn; default `Sampling()`.

    Returns:
        The drawn tokens, and the state after all of them have been read, so that the
        next prompt simply goes on. After a stop token the rest repeats it, unread.

    Raises:
        ValueError: If there is no prompt token, or one is outside the vocabulary.
    """
    n_tokens = operator.index(n_tokens)  # NumPy's, too
    check_token_ids(model, prompt_tokens)
    tokens, state = _generate(
        model,
        prompt_tokens,
        state,
        key,
        (sampling or Sampling()).traced(),
        jnp.asarray(n_tokens, jnp.int32),
        _n_positions(n_tokens),
    )
    return tokens[:n_tokens], state


def generate_batch(
    model: TitansLM,
    prompts: Sequence[np.ndarray | Int[Array, " _"]],
    n_tokens: SupportsIndex,
    *,
    key: PRNGKeyArray,
    state: ModelState | None = None,
    sampling: Sampling | None = None,
) -> tuple[Int[Array, "batch n_tokens"], ModelState]:
    """`generate` for several prompts side by side, of any lengths.

    Compiled once for each number of prompts, length of the longest (rounded up),
    `n_tokens` (rounded up) and number of stop tokens. Each prompt draws what it would
    draw alone with its own key, which is entry `i` of `jax.random.split(key,
    len(prompts))`.

    Args:
        model: The model.
        prompts: Token ids of each prompt, at least one token in each.
        n_tokens: How many tokens to draw for each.
        key: Split into one key for each prompt.
        state: A batch of states before the prompts, such as this function returns; None
            for fresh sequences.
        sampling: How tokens are drawn; default `Sampling()`.

    Returns:
        The drawn tokens, and the batch of states after them.

    Raises:
        ValueError: If there is no prompt, or one has no token or one outside the
            vocabulary.
    """
    n_tokens = operator.index(n_tokens)
    for prompt in prompts:
        check_token_ids(model, prompt)
    lengths = [len(prompt) for prompt in prompts]
    if not lengths or min(lengths) == 0:
        raise ValueError(
            "every prompt needs at least one token, and there must be a prompt; got "
            f"prompts of the lengths {lengths}."
        )
    longest = -(-max(lengths) // PADDED_BLOCK_LEN) * PADDED_BLOCK_LEN
    padded = np.zeros((len(prompts), longest), np.int32)
    for row, prompt in zip(padded, prompts, strict=True):
        row[: len(prompt)] = np.asarray(prompt)
    tokens, state = _generate_padded(
        model,
        jnp.asarray(padded),
        jnp.asarray(lengths, jnp.int32),
        state,
        jr.split(key, len(prompts)),
        (sampling or Sampling()).traced(),
        jnp.asarray(n_tokens, jnp.int32),
        _n_positions(n_tokens),
    )
    return tokens[:, :n_tokens], state


def check_token_ids(
    model: TitansLM, tokens: np.ndarray | Int[Array, " n_tokens"]
) -> None:
    """Refuse token ids that a model does not have, which it would read as others.

    Where `jax.vmap` or `jax.jit` calls, the ids are not known and are not checked.

    Raises:
        ValueError: If there is such an id.
    """
    if isinstance(tokens, Tracer):
        return
    ids, vocab_size = np.asarray(tokens), model.embedding.shape[0]
    if (outside := ids[(ids < 0) | (ids >= vocab_size)]).size > 0:
        raise ValueError(
            f"token ids must be from 0 to {vocab_size - 1}, the vocabulary of the "
            f"model, got {outside[0]}."
        )


def _n_positions(n_tokens: int) -> int:
    if n_tokens < 0:
        raise ValueError(f"the number of tokens must be at least 0, got {n_tokens}.")
    return max(MIN_POSITIONS, 1 << (n_tokens - 1).bit_length())


@eqx.filter_jit
def _generate(
    model: TitansLM,
    prompt: Int[Array, " seq"],
    state: ModelState | None,
    key: PRNGKeyArray,
    sampling: Sampling,
    n_tokens: Int[Array, ""],
    n_positions: int,
) -> tuple[Int[Array, " positions"], ModelState]:
    logits, state = prefill(model, prompt, state)
    tokens, _, state = extend(
        model, logits, state, key, sampling, n_tokens, n_positions
    )
    return tokens, state


@eqx.filter_jit
def _generate_padded(
    model: TitansLM,
    prompts: Int[Array, "batch longest"],
    lengths: Int[Array, " batch"],
    state: ModelState | None,
    keys: Key[Array, " batch"],
    sampling: Sampling,
    n_tokens: Int[Array, ""],
    n_positions: int,
) -> tuple[Int[Array, "batch positions"], ModelState]:
    def one_prompt(
        prompt: Int[Array, " longest"],
        length: Int[Array, ""],
        key: PRNGKeyArray,
        state: ModelState | None,
    ) -> tuple[Int[Array, " positions"], ModelState]:
        logits, state = prefill_padded(model, prompt, length, state)
        tokens, _, state = extend(
            model, logits, state, key, sampling, n_tokens, n_positions
        )
        return tokens, state

    side_by_side = jax.vmap(one_prompt, axis_name=STREAMS)
    return side_by_side(prompts, lengths, keys, state)


def extend(
    model: TitansLM,
    logits: Float[Array, " vocab"],
    state: ModelState,
    key: PRNGKeyArray,
    sampling: Sampling,
    n_tokens: Int[Array, ""],
    n_positions: int,
    *,
    given: Int[Array, " positions"] | None = None,
) -> tuple[Int[Array, " positions"], Float[Array, " vocab"], ModelState]:
    """Draw tokens, the first of them from `logits`, which were predicted with `state`.

    Args:
        model: The model.
        logits: What it predicts next.
        state: The state of its stream.
        key: The same key draws the same tokens.
        sampling: How tokens are drawn.
        n_tokens: How many; fewer if a stop token comes first.
        n_positions: Length of the result; what is not drawn repeats the last token.
        given: Tokens to read in place of drawn ones, where they are not negative.

    Returns:
        The tokens, the logits for the next one, and the state after them.
    """
    # Neither weights nor states are copied out of their stacks at every token.
    unstacked = model.unstack()
    keys = jr.split(key, n_positions)

    # Through the axis of a stack of one XLA does not see that a state is updated in
    # place: with it, all of it is copied several times for each token.
    def drop_axis(x: Array) -> Array:
        return x[0]

    def add_axis(x: Array) -> Array:
        return x[None]

    def goes_on(carry: _Carry) -> Bool[Array, ""]:
        n_done, is_over, *_ = carry
        return any_stream((n_done < n_tokens) & ~is_over)

    def body(carry: _Carry) -> _Carry:
        n_done, was_over, (logits, state), end, tokens = carry
        token = sampling(logits, key=keys[n_done])
        is_stop = sampling.is_stop(token)
        if given is not None:
            is_given = given[n_done] >= 0
            token = jnp.where(is_given, given[n_done], token)
            is_stop = is_stop & ~is_given
        logits, state = unstacked.step(token, jax.tree.map(add_axis, state))
        place = logits, jax.tree.map(drop_axis, state)
        if end is not None:
            end = select_seldom(is_stop & ~was_over, lambda: place, end)
        tokens = tokens.at[n_done].set(token)
        n_done = n_done + (~was_over).astype(jnp.int32)
        return n_done, was_over | is_stop, place, end, tokens

    place = logits, jax.tree.map(drop_axis, model.unstack_state(state))
    # A stream that is over reads on until all are; where it ended is kept aside.
    may_wait = are_side_by_side() and np.size(sampling.stop_tokens) > 0
    start = (
        jnp.zeros((), jnp.int32),
        jnp.zeros((), bool),
        place,
        place if may_wait else None,
        jnp.zeros(n_positions, jnp.int32),
    )
    carry = while_loop(goes_on, body, start, (keys, n_tokens))
    n_done, is_over, place, end, tokens = carry
    logits, state = place if end is None else select(is_over, end, place)
    state = jax.tree.map(add_axis, state)
    last = tokens[jnp.maximum(n_done - 1, 0)]
    tokens = jnp.where(jnp.arange(n_positions, dtype=jnp.int32) < n_done, tokens, last)
    return tokens, logits, model.stack_state(state)
