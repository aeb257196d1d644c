"""What the backward pass keeps of a piece of a sequence, and what it computes again.

Keeping everything costs more time than it saves, in traffic to main memory; computing
everything again costs a forward pass. Results of matrix products are kept, because they
are small beside the work that made them; everything else, a few operations for each
number, is done again. Sums over time (`a^T g`) are not kept: they are as large as the
memory.
"""

from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

Inputs = ParamSpec("Inputs")
Output = TypeVar("Output")

KEPT: Final = "kept"


def keep(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Mark the result of a matrix product: `recomputed` functions keep it.

    Args:
        x: Any result.

    Returns:
        The same.
    """
    return checkpoint_name(x, KEPT)


def recomputed(body: Callable[Inputs, Output]) -> Callable[Inputs, Output]:
    """Run a function again in the backward pass, except for what it keeps.

    Args:
        body: Body of a scan.

    Returns:
        The same function.
    """
    policy = jax.checkpoint_policies.save_only_these_names(KEPT)
    return jax.checkpoint(body, policy=policy)
