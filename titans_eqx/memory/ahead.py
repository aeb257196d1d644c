"""What is worked out for all chunks of a sequence at once: before a loop, or without.

An accelerator is idle while chunks come one after the other, so the less is done in
between, the better. On a CPU a chunk that is worked out in its turn is still in the
caches when it is taken in.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias, TypeGuard, TypeVar

import jax
from jaxtyping import Array, Bool, Float, PyTree

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.affine import AbstractAffineRule
from titans_eqx.memory.inputs import MemoryInputs
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.rule import (
    AbstractPreparedRule,
    AbstractRule,
    AbstractRuleState,
)
from titans_eqx.nn.remat import recomputes_everything, remat

State = TypeVar("State", bound=AbstractRuleState)
TakeIn: TypeAlias = Callable[
    [PyTree[Array], State], tuple[Float[Array, "chunk d"], State]
]

# 96 rows for chunks of 32 tokens were measured on an H200; larger maps were not.
MAX_ROWS_PER_TOKEN: Final = 4


def prepares_ahead() -> bool:
    """Whether what does not depend on the memory is worked out for all chunks at once.

    It is kept for all of them, so not where nothing is to be kept.
    """
    return jax.default_backend() != "cpu" and not recomputes_everything()


def has_map(rule: AbstractRule) -> TypeGuard[AbstractAffineRule]:
    """Whether a rule's chunks are maps, which speak of all that its class does."""
    forms = "chunk", "chunk_prepared", "start_chunk", "end_chunk"
    return isinstance(rule, AbstractAffineRule) and _stands_for(
        rule, "chunk_map", *forms
    )


def maps_chunks(
    rule: AbstractRule, carry: PyTree[Array], n_chunks: int
) -> TypeGuard[AbstractAffineRule]:
    """Whether whole chunks are taken in as maps of the memory, all at once.

    That is work instead of waiting, so only where chunks are prepared ahead, there are
    several, and maps are not much larger than what is prepared.
    """
    if n_chunks == 1 or not prepares_ahead() or not has_map(rule):
        return False
    n_rows = sum(len(matrix) for matrix in jax.tree.leaves(carry))
    is_cut = rule.outer_gradient.truncate_every > 0
    return n_rows <= MAX_ROWS_PER_TOKEN * rule.chunk_len and not is_cut


def prepare_chunks(
    rule: AbstractRule[State],
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    is_real: Bool[Array, "n_chunks chunk"],
    initial: MemoryWeights | None,
) -> tuple[PyTree[Array], TakeIn[State]]:
    """The chunks for a scan, and how to take in one of them.

    Args:
        rule: The update rule.
        net: Structure of the memory.
        inputs: With a leading axis of chunks (or blocks).
        is_real: False at padding.
        initial: M_0.
    """
    is_split = isinstance(rule, AbstractPreparedRule)
    if is_split and prepares_ahead() and _stands_for(rule, "chunk_prepared", "chunk"):
        prepare = remat(jax.vmap(partial(rule.prepare, net)), in_loop=False)
        prepared = prepare(inputs, is_real)
        return prepared, lambda chunk, state: rule.chunk_prepared(
            net, chunk, state, initial
        )

    def in_turn(
        chunk: tuple[MemoryInputs, Bool[Array, " chunk"]], state: State
    ) -> tuple[Float[Array, "chunk d"], State]:
        inputs, is_real = chunk
        return rule.chunk(net, inputs, is_real, state, initial)

    return (inputs, is_real), in_turn


def _stands_for(rule: AbstractRule, method: str, *others: str) -> bool:
    """Whether a method is of the class that gave the others, or of one below it.

    A subclass may have one of the others anew; then that is what has to run.
    """
    classes = type(rule).__mro__

    def place(name: str) -> int:
        return next(i for i, each in enumerate(classes) if name in vars(each))

    return place(method) <= min(place(name) for name in others)
