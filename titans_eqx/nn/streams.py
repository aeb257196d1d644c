"""Streams side by side: what is asked once for all of them.

`jax.vmap` turns a condition of each stream into a choice between two results that are
both computed, for all streams and at every token, and a loop that each stream leaves by
itself into one that copies all their states. Under the axis name `STREAMS` a condition
can be asked of all streams together, and then stays a condition.
"""

from typing import Final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

STREAMS: Final = "streams side by side"  # axis name for `jax.vmap`


def are_side_by_side() -> bool:
    """Whether this is traced for several streams, under the axis name `STREAMS`."""
    try:
        jax.lax.axis_size(STREAMS)
    except NameError:  # jax knows no axis of that name here
        return False
    return True


def any_stream(condition: Bool[Array, ""]) -> Bool[Array, ""]:
    """Whether a condition holds for any of the streams, or for the only one."""
    if not are_side_by_side():
        return condition
    return jax.lax.pmax(condition.astype(jnp.int32), STREAMS) > 0
