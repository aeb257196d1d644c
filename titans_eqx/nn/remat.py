"""Rematerialisation: what the backward pass keeps, and what it computes again.

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

SAVED: Final = "saved"


def save_for_backward(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Mark a result that functions under `remat` keep for the backward pass."""
    return checkpoint_name(x, SAVED)


def remat(body: Callable[Inputs, Output]) -> Callable[Inputs, Output]:
    """Run a function again in the backward pass, except for `save_for_backward`."""
    policy = jax.checkpoint_policies.save_only_these_names(SAVED)
    return jax.checkpoint(body, policy=policy)
