"""Rematerialisation: what the backward pass keeps, and what it computes again.

Keeping everything costs more time than it saves, in traffic to main memory; computing
everything again costs a forward pass. Results of matrix products are kept, because they
are small beside the work that made them; everything else, a few operations for each
number, is done again. Sums over time (`a^T g`) are not kept: they are as large as the
memory. What is prepared for all chunks at once (on accelerators) is kept as well.

That is level "none" of `recomputing`. The others save memory and cost time:

- "block": a block of the stack keeps its input alone, and is run again when its turn
  in the backward pass comes; meanwhile it keeps what it keeps at level "none";
- "everything": within the block, too, chunks and segments keep only what they start
  from, and are run once more.

Weights that a block gathers from several devices are not kept at any level: they are
large, and cheap to have again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal, ParamSpec, TypeAlias, TypeVar

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

Inputs = ParamSpec("Inputs")
Output = TypeVar("Output")

RematLevel: TypeAlias = Literal["none", "block", "everything"]

SAVED: Final = "saved"
# Of the computation that is being traced: no part of a model, whose results and weights
# are the same at every level.
_LEVEL: Final[ContextVar[RematLevel]] = ContextVar("_LEVEL", default="none")


def save_for_backward(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Mark a result that functions under `remat` keep for the backward pass."""
    return checkpoint_name(x, SAVED)


@contextmanager
def recomputing(level: RematLevel) -> Iterator[None]:
    """Set how much of what is traced in the block the backward pass computes again."""
    token = _LEVEL.set(level)
    try:
        yield
    finally:
        _LEVEL.reset(token)


def recomputes_everything() -> bool:
    """Whether chunks and segments keep only what they start from."""
    return _LEVEL.get() == "everything"


def recomputes_blocks() -> bool:
    """Whether a block of the stack keeps its input alone."""
    return _LEVEL.get() != "none"


def remat(
    body: Callable[Inputs, Output], *, in_loop: bool = True
) -> Callable[Inputs, Output]:
    """Run a function again in the backward pass, except for `save_for_backward`.

    Args:
        body: The function.
        in_loop: Whether a scan runs it. Its backward pass is then in another loop,
            where XLA cannot see that it was run before. Elsewhere a barrier hides that,
            which in a loop would copy all that is kept. (A loop of one turn is none for
            XLA, which then keeps what it likes.)
    """
    save = jax.checkpoint_policies.save_only_these_names(SAVED)
    policy = None if recomputes_everything() else save
    return jax.checkpoint(body, policy=policy, prevent_cse=not in_loop)


def remat_block(
    body: Callable[Inputs, Output], *, gathers: bool, in_loop: bool
) -> Callable[Inputs, Output]:
    """Run a block again in the backward pass if the level says so.

    Args:
        body: The block.
        gathers: Whether it gathers its weights, which it then does again at any level.
        in_loop: See `remat`.
    """
    if not recomputes_blocks():
        return remat(body, in_loop=in_loop) if gathers else body
    return jax.checkpoint(body, prevent_cse=not in_loop)
