"""A batch in parts, with the activations of one at a time.

To save memory, on any device; and because a CPU is faster: what a few hundred tokens
make of themselves stays in its cache until the next layer, or the backward pass, needs
it.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, PyTree

from titans_eqx.sharding.mesh import AnyMesh, is_on_cpu
from titans_eqx.sharding.varying import scan
from titans_eqx.training.loss import Batch

Inputs: TypeAlias = tuple[Batch, PyTree[Array]]
"""A batch, and what its rows carry, if anything; a leading batch axis everywhere."""
LossSum: TypeAlias = Callable[
    [PyTree[Array], PyTree[Array], Inputs],
    tuple[Float[Array, ""], tuple[Array, PyTree[Array]]],
]
"""From trainable arrays, frozen arrays and inputs to the sum of the losses, the number
of scored tokens, and what the rows carry on."""

# Of a device. Measured: a step takes 0.6 to 0.9 of the time of one with 16 rows of 256
# tokens at once, and as long as one with two of 512 where the width is 256; without a
# backward pass eight rows of 256 take 0.7 to 0.9.
TOKENS_AT_ONCE_ON_CPU: Final = 512


def most_tokens_at_once(mesh: AnyMesh) -> int | None:
    """As many as a device of the mesh reads at once; None for all that it is given."""
    return TOKENS_AT_ONCE_ON_CPU if is_on_cpu(mesh) else None


def in_microbatches(
    loss_sum: LossSum, n_parts: int, *, tokens_at_once: int | None = None
) -> LossSum:
    """The same function, whose gradient is summed over parts of the batch.

    Sums rather than means are added, so that what each token counts does not depend on
    the part that it is in. Every part is differentiated before the next is begun.

    Args:
        loss_sum: Of some rows of a batch.
        n_parts: Equal parts of the batch axis, at least.
        tokens_at_once: Parts with more are divided further, as far as rows allow.

    Returns:
        A function that can be differentiated once, by the trainable arrays.
    """

    def of_batch(
        parameters: PyTree[Array], frozen: PyTree[Array], inputs: Inputs
    ) -> tuple[Float[Array, ""], tuple[Array, PyTree[Array]]]:
        n = _smaller_parts(inputs[0], n_parts, tokens_at_once)
        summed = loss_sum if n == 1 else _in_parts(loss_sum, n)
        return summed(parameters, frozen, inputs)

    return of_batch


def map_parts(
    function: Callable[[Inputs], PyTree[Array]],
    inputs: Inputs,
    *,
    tokens_at_once: int | None,
) -> PyTree[Array]:
    """What a function makes of each row of a batch, a few rows at a time.

    Args:
        function: From some rows to arrays with a leading axis of these.
        inputs: All rows.
        tokens_at_once: Parts are as large as they may be with so many, one row at
            least; None for all rows at once.
    """
    n_parts = _smaller_parts(inputs[0], 1, tokens_at_once)
    if n_parts == 1:
        return function(inputs)
    return _join(jax.lax.map(function, _split(inputs, n_parts)))


def _split(rows: PyTree[Array], n_parts: int) -> PyTree[Array]:
    return jax.tree.map(
        lambda x: rearrange(x, "(n batch) ... -> n batch ...", n=n_parts), rows
    )


def _join(parts: PyTree[Array]) -> PyTree[Array]:
    return jax.tree.map(lambda x: rearrange(x, "n batch ... -> (n batch) ..."), parts)


def _smaller_parts(batch: Batch, n_parts: int, tokens_at_once: int | None) -> int:
    """A multiple of a number of parts, whose parts have few tokens."""
    if tokens_at_once is None:
        return n_parts
    n_rows = max(len(x) for x in batch.values())
    row_len = max((x.shape[1] for x in batch.values() if x.ndim > 1), default=1)
    rows_at_once = max(1, tokens_at_once // row_len)
    fitting = (
        n
        for n in range(n_parts, n_rows + 1, n_parts)
        if n_rows % n == 0 and n_rows // n <= rows_at_once
    )
    return next(fitting, n_parts)


def _in_parts(loss_sum: LossSum, n_parts: int) -> LossSum:
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

        zeros = jax.tree.map(jnp.zeros_like, parameters)
        gradient, (losses, (counts, carries)) = scan(
            body, zeros, _split(inputs, n_parts)
        )
        count = jnp.sum(counts, dtype=counts.dtype)
        return (jnp.sum(losses), (count, _join(carries))), gradient

    def backward(
        gradient: PyTree[Array], cotangents: tuple[Float[Array, ""], PyTree[Array]]
    ) -> tuple[PyTree[Array], None, None]:
        return jax.tree.map(lambda g: cotangents[0] * g, gradient), None, None

    summed = jax.custom_vjp(loss_sum)
    summed.defvjp(forward, backward)
    return summed
