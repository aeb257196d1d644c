"""Constants inside `shard_map`: which mesh axes an array varies over.

Inside `shard_map` the type of an array says over which mesh axes its values differ. Two
things go wrong with fresh constants, which differ nowhere: a scan refuses a carry that
starts as a constant and ends varying, and a derivative with respect to a constant
arrives summed over the devices, which would let sequences on different devices leak
into each other. Outside `shard_map` these functions change nothing.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import TypeVar

import jax
from jaxtyping import Array, Bool, PyTree

from titans_eqx.nn.mesh_axes import mark_varying, varying_axes
from titans_eqx.nn.streams import any_stream, are_side_by_side
from titans_eqx.nn.tree import select

# Of arrays. Not said to the hook that checks types: here, in every scan of a model,
# looking at each leaf would take a good part of the time of the tests.
Tree = TypeVar("Tree", bound=PyTree)


def vary_like(tree: Tree, reference: PyTree) -> Tree:
    """Mark arrays as varying over every mesh axis that any reference varies over.

    Args:
        tree: Arrays, such as fresh zeros.
        reference: Arrays that they will meet.

    Returns:
        The same values.
    """
    return vary_over(tree, varying_axes(*jax.tree.leaves((tree, reference))))


def vary_over(tree: Tree, axes: Collection[str]) -> Tree:
    """Mark arrays as varying over mesh axes, whether or not they do already."""
    return jax.tree.map(partial(mark_varying, axes), tree)


def scan(
    body: Callable[[Tree, PyTree], tuple[Tree, PyTree]],
    start: Tree,
    xs: PyTree,
) -> tuple[Tree, PyTree]:
    """`jax.lax.scan` whose carry may start from, and come back as, constants."""

    def varying(carry: Tree, x: PyTree) -> tuple[Tree, PyTree]:
        after, y = body(carry, x)
        return vary_like(after, carry), y

    return jax.lax.scan(varying, vary_like(start, xs), xs)


def while_loop(
    goes_on: Callable[[Tree], Array],
    body: Callable[[Tree], Tree],
    start: Tree,
    reference: PyTree,
) -> Tree:
    """`jax.lax.while_loop` whose carry may start from, and come back as, constants.

    Args:
        goes_on: Whether there is another turn.
        body: One turn.
        start: The carry before the first one.
        reference: What the body uses besides the carry.
    """
    return jax.lax.while_loop(
        goes_on,
        lambda carry: vary_like(body(carry), carry),
        vary_like(start, reference),
    )


def select_seldom(
    condition: Bool[Array, ""], if_true: Callable[[], Tree], if_false: Tree
) -> Tree:
    """`select` where the condition seldom holds, and one tree is costly to compute.

    A CPU then neither computes `if_true` nor copies `if_false` where it does not hold,
    nor where it holds for none of the streams side by side (`titans_eqx.nn.streams`).
    An accelerator, which would have to wait for the host to look at the condition,
    computes both and selects, as any backend does for another batch of conditions.

    Args:
        condition: Seldom true.
        if_true: Computes the tree that is seldom wanted.
        if_false: The other one. It must vary over every mesh axis that the first does,
            or a CPU refuses them as trees of different types.
    """
    if jax.default_backend() != "cpu":
        return select(condition, if_true(), if_false)
    references = condition, if_false

    def chosen() -> Tree:
        wanted = if_true()
        return select(condition, wanted, if_false) if are_side_by_side() else wanted

    return jax.lax.cond(
        any_stream(condition),
        lambda: vary_like(chosen(), references),
        lambda: vary_like(if_false, references),
    )
