"""Generation: read a prompt, then draw tokens one by one."""

from typing import TypeAlias

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from titans_eqx.generation.prefill import prefill
from titans_eqx.generation.sampling import Sampling
from titans_eqx.memory.boundary import select
from titans_eqx.models import ModelState, TitansLM
from titans_eqx.nn.varying import scan

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
        key: Random key; the same key draws the same tokens.
        state: Where the stream stands before the prompt; None for a fresh sequence.
        sampling: How tokens are drawn; default `Sampling()`.

    Returns:
        The drawn tokens, and the state after all of them have been read, so that the
        next prompt simply goes on. After a stop token the rest repeats it, unread.
    """
    sampling = sampling or Sampling()
    logits, state = prefill(model, prompt_tokens, state)
    tokens, _, state = extend(model, logits, state, key, sampling, n_tokens)
    return tokens, state


def extend(
    model: TitansLM,
    logits: Float[Array, " vocab"],
    state: ModelState,
    key: PRNGKeyArray,
    sampling: Sampling,
    n_tokens: int,
) -> tuple[Int[Array, " n_tokens"], Float[Array, " vocab"], ModelState]:
    """Draw tokens from where a stream stands.

    Args:
        model: The model.
        logits: Prediction of the first token to draw.
        state: State that made this prediction.
        key: Random key.
        sampling: How tokens are drawn.
        n_tokens: How many tokens to draw.

    Returns:
        The tokens, the prediction of the next one, and the state after them.
    """

    def body(carry: _Carry, key: PRNGKeyArray) -> tuple[_Carry, Int[Array, ""]]:
        logits, state, last, is_over = carry
        token = jnp.where(is_over, last, sampling(logits, key=key))
        new_logits, new_state = model.step(token, state)
        logits, state = select(is_over, (logits, state), (new_logits, new_state))
        return (logits, state, token, is_over | sampling.is_stop(token)), token

    start = (logits, state, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    (logits, state, _, _), tokens = scan(body, start, jr.split(key, n_tokens))
    return tokens, logits, state
