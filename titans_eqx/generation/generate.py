"""Generation: read a prompt, then draw tokens one by one."""

from collections.abc import Sequence
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from titans_eqx.generation.prefill import PADDED_BLOCK_LEN, prefill, prefill_padded
from titans_eqx.generation.sampling import Sampling
from titans_eqx.models import ModelState, TitansLM
from titans_eqx.nn.tree import select
from titans_eqx.sharding.varying import scan

_Carry: TypeAlias = tuple[
    Float[Array, " vocab"], ModelState, Int[Array, ""], Bool[Array, ""]
]


@eqx.filter_jit
def generate(
    model: TitansLM,
    prompt_tokens: Int[Array, " seq"],
    n_tokens: int,
    *,
    key: PRNGKeyArray,
    state: ModelState | None = None,
    sampling: Sampling | None = None,
) -> tuple[Int[Array, " n_tokens"], ModelState]:
    """Go on from a prompt; compiled once for each prompt length and `n_tokens`.

    Every token costs the same, however long the stream already is.

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
    """
    logits, state = prefill(model, prompt_tokens, state)
    tokens, _, state = extend(
        model, logits, state, key, sampling or Sampling(), n_tokens
    )
    return tokens, state


def generate_batch(
    model: TitansLM,
    prompts: Sequence[np.ndarray | Int[Array, " _"]],
    n_tokens: int,
    *,
    key: PRNGKeyArray,
    state: ModelState | None = None,
    sampling: Sampling | None = None,
) -> tuple[Int[Array, "batch n_tokens"], ModelState]:
    """`generate` for several prompts side by side, of any lengths.

    Compiled once for each number of prompts, length of the longest (rounded up) and
    `n_tokens`. Each prompt draws what it would draw alone with its own key, which is
    entry `i` of `jax.random.split(key, len(prompts))`.

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
        ValueError: If there is no prompt, or one has no token.
    """
    lengths = [len(prompt) for prompt in prompts]
    if not lengths or min(lengths) == 0:
        raise ValueError(
            "every prompt needs at least one token, and there must be a prompt; got "
            f"prompts of the lengths {lengths}."
        )
    n_positions = -(-max(lengths) // PADDED_BLOCK_LEN) * PADDED_BLOCK_LEN
    padded = np.zeros((len(prompts), n_positions), np.int32)
    for row, prompt in zip(padded, prompts, strict=True):
        row[: len(prompt)] = np.asarray(prompt)
    return _generate_padded(
        model,
        jnp.asarray(padded),
        jnp.asarray(lengths, jnp.int32),
        jr.split(key, len(prompts)),
        state,
        sampling or Sampling(),
        n_tokens,
    )


@eqx.filter_jit
def _generate_padded(
    model: TitansLM,
    prompts: Int[Array, "batch positions"],
    lengths: Int[Array, " batch"],
    keys: Key[Array, " batch"],
    state: ModelState | None,
    sampling: Sampling,
    n_tokens: int,
) -> tuple[Int[Array, "batch n_tokens"], ModelState]:
    def one_prompt(
        prompt: Int[Array, " positions"],
        length: Int[Array, ""],
        key: PRNGKeyArray,
        state: ModelState | None,
    ) -> tuple[Int[Array, " n_tokens"], ModelState]:
        logits, state = prefill_padded(model, prompt, length, state)
        tokens, _, state = extend(model, logits, state, key, sampling, n_tokens)
        return tokens, state

    return jax.vmap(one_prompt)(prompts, lengths, keys, state)


def extend(
    model: TitansLM,
    logits: Float[Array, " vocab"],
    state: ModelState,
    key: PRNGKeyArray,
    sampling: Sampling,
    n_tokens: int,
) -> tuple[Int[Array, " n_tokens"], Float[Array, " vocab"], ModelState]:
    """Draw tokens, the first of them from `logits`, which were predicted with `state`.

    Returns:
        The tokens, the logits for the next one, and the state after them.
    """
    # Neither weights nor states are copied out of their stacks at every token.
    unstacked = model.unstack()

    def body(carry: _Carry, key: PRNGKeyArray) -> tuple[_Carry, Int[Array, ""]]:
        logits, state, last, is_over = carry
        token = jnp.where(is_over, last, sampling(logits, key=key))
        new = unstacked.step(token, state)
        if sampling.stop_tokens:  # else never over, and choosing would copy the state
            new = select(is_over, (logits, state), new)
        logits, state = new
        return (logits, state, token, is_over | sampling.is_stop(token)), token

    state = model.unstack_state(state)
    start = (logits, state, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    (logits, state, _, _), tokens = scan(body, start, jr.split(key, n_tokens))
    return tokens, logits, model.stack_state(state)
