"""What a child process runs again and again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PyTree

from titans_eqx.nn.flops import count_flops

FORWARD_PASSES: Final = 1


@dataclass(frozen=True, kw_only=True)
class Program:
    """One case, built: its inputs are on the devices."""

    run: Callable[[], PyTree]  # one whole run; returns what has to be waited for
    n_tokens: int  # tokens read or drawn in a run
    n_parameters: int
    forward: Callable[..., PyTree] | None = None  # the forward pass on one device
    forward_inputs: tuple[Any, ...] = ()
    passes: int = FORWARD_PASSES
    dtype: DTypeLike = jnp.float32  # of the factors of large products
    is_run_warm: bool = True  # whether a first run, which compiles, is left out

    def useful_flops(self) -> int:
        """FLOPs of matrix products that a run has to do.

        The forward pass is counted, once for a forward case and three times for one
        with a gradient; what the backward pass computes again to save memory is not
        useful, and so lowers the FLOP/s that are reported. 0 for a case without a
        forward pass of its own.
        """
        if self.forward is None:
            return 0
        return self.passes * count_flops(self.forward, *self.forward_inputs)


def count_parameters(tree: PyTree) -> int:
    """Numbers in all arrays of a tree, or in their shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree) if hasattr(leaf, "size"))
