"""Gradient accumulation: a batch in parts, with the activations of one at a time."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int, PyTree

from titans_eqx.sharding.varying import scan
from titans_eqx.training.loss import Batch

Inputs: TypeAlias = tuple[Batch, PyTree[Array]]
"""A batch, and what its rows carry, if anything; a leading batch axis everywhere."""
LossSum: TypeAlias = Callable[
    [PyTree[Array], PyTree[Array], Inputs],
    tuple[Float[Array, ""], tuple[Int[Array, ""], PyTree[Array]]],
]
"""From trainable arrays, frozen arrays and inputs to the sum of the losses, the number
of scored tokens, and what the rows carry on."""


def in_microbatches(loss_sum: LossSum, n_parts: int) -> LossSum:
    """The same function, whose gradient is summed over parts of the batch.

    Sums rather than means are added, so that what each token counts does not depend on
    the part that it is in. Every part is differentiated before the next is begun.

    Args:
        loss_sum: Of a batch.
        n_parts: Equal parts of the batch axis; 1 changes nothing.

    Returns:
        A function that can be differentiated once, by the trainable arrays.
    """
    if n_parts == 1:
        return loss_sum

    def forward(
        parameters: PyTree[Array], frozen: PyTree[Array], inputs: Inputs
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        def body(
            total: PyTree[Array], part: Inputs
        ) -> tuple[PyTree[Array], PyTree[Array]]:
            of_part, gradient = jax.value_and_grad(loss_sum, has_aux=True)(
                parameters, frozen, part
            )
            return jax.tree.map(jnp.add, total, gradient), of_part

        parts = jax.tree.map(
            lambda x: rearrange(x, "(n batch) ... -> n batch ...", n=n_parts), inputs
        )
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        gradient, (losses, (counts, carries)) = scan(body, zeros, parts)
        carry = jax.tree.map(
            lambda x: rearrange(x, "n batch ... -> (n batch) ..."), carries
        )
        count = jnp.sum(counts, dtype=counts.dtype)
        return (jnp.sum(losses), (count, carry)), gradient

    def backward(
        gradient: PyTree[Array], cotangents: tuple[Float[Array, ""], PyTree[Array]]
    ) -> tuple[PyTree[Array], None, None]:
        return jax.tree.map(lambda g: cotangents[0] * g, gradient), None, None

    summed = jax.custom_vjp(loss_sum)
    summed.defvjp(forward, backward)
    return summed
