"""A sequence from its start, read in whole units: chunks of a memory, or segments."""

from collections.abc import Callable
from typing import TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from titans_eqx.nn.padding import Padding

State = TypeVar("State")


def read_units(
    read: Callable[
        [Float[Array, "positions d_model"], State, Padding],
        tuple[Float[Array, "positions d_model"], State],
    ],
    x: Float[Array, "seq d_model"],
    state: State,
    unit: int,
) -> tuple[Float[Array, "seq d_model"], State]:
    """Read tokens, of which the first is the first of a unit.

    Only the last unit can be incomplete. It is read by itself, so that those before it,
    which have no padding, are read in their faster form.

    Args:
        read: Reads whole units of positions, given which of them are real.
        x: Tokens, at least one.
        state: Where the stream stands, at the start of a unit.
        unit: Tokens of a unit.

    Returns:
        What is read at each token, and the state after the last one.
    """
    n_tokens = x.shape[0]
    n_rest = n_tokens % unit
    n_whole = n_tokens - n_rest
    parts = []
    if n_whole > 0:
        y, state = read(x[:n_whole], state, Padding.none(n_whole))
        parts.append(y)
    if n_rest > 0:
        # As a block of all tokens, which says how many were read before.
        padding = Padding.trailing(n_tokens, n_whole + unit)
        padding = padding.block(jnp.asarray(n_whole, jnp.int32), unit)
        rest = jnp.pad(x[n_whole:], ((0, unit - n_rest), (0, 0)))
        y, state = read(rest, state, padding)
        parts.append(y[:n_rest])
    return jnp.concatenate(parts), state
