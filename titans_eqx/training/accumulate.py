"""Gradient accumulation: a batch in parts, with the activations of one at a time."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int, PyTree

from titans_eqx.sharding.varying import scan
from titans_eqx.training.loss import Batch

LossSum: TypeAlias = Callable[
    [PyTree[Array], PyTree[Array], Batch], tuple[Float[Array, ""], Int[Array, ""]]
]
"""From trainable arrays, frozen arrays and a batch to the sum of the losses and the
number of scored tokens."""


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
        parameters: PyTree[Array], frozen: PyTree[Array], batch: Batch
    ) -> tuple[tuple[Float[Array, ""], Int[Array, ""]], PyTree[Array]]:
        def body(
            total: PyTree[Array], part: Batch
        ) -> tuple[PyTree[Array], tuple[Float[Array, ""], Int[Array, ""]]]:
            sums, gradient = jax.value_and_grad(loss_sum, has_aux=True)(
                parameters, frozen, part
            )
            return jax.tree.map(jnp.add, total, gradient), sums

        parts = jax.tree.map(
            lambda x: rearrange(x, "(n batch) ... -> n batch ...", n=n_parts), batch
        )
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        gradient, (losses, counts) = scan(body, zeros, parts)
        return (jnp.sum(losses), jnp.sum(counts, dtype=counts.dtype)), gradient

    def backward(
        gradient: PyTree[Array], cotangents: tuple[Float[Array, ""], Array]
    ) -> tuple[PyTree[Array], None, None]:
        return jax.tree.map(lambda g: cotangents[0] * g, gradient), None, None

    summed = jax.custom_vjp(loss_sum)
    summed.defvjp(forward, backward)
    return summed
