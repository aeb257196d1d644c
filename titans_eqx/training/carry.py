"""Memory carried from one window of a text to the next (truncated backpropagation).

Row `r` of a batch goes on where row `r` of the batch before stopped. Its state comes
along, as in a stream, and no gradient flows back through it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from titans_eqx.models import ModelState, TitansLM
from titans_eqx.nn.tree import select
from titans_eqx.nn.vmap import vmap
from titans_eqx.training.loss import Batch, Precision, score_tokens
from titans_eqx.training.precision import in_mixed_precision


def init_carry(
    model: TitansLM, batch_size: int, precision: Precision = "float32"
) -> PyTree[Array]:
    """A fresh state for every row of a batch, as `stream_loss` returns them."""
    if precision == "mixed":
        model = in_mixed_precision(model)
    return jax.tree.map(
        lambda x: jnp.broadcast_to(x, (batch_size, *x.shape)), model.init_state()
    )


def stream_loss(
    model: TitansLM,
    batch: Batch,
    carry: PyTree[Array],
    *,
    block_len: int = 0,
    precision: Precision = "float32",
) -> tuple[Float[Array, ""], Int[Array, ""], PyTree[Array]]:
    """The loss of rows that go on with streams.

    Args:
        model: The model.
        batch: What it reads; `reset` says which rows start a stream of their own.
        carry: The state of each row, from `init_carry` or an earlier call.
        block_len: See `batch_loss`.
        precision: See `batch_loss`.

    Returns:
        Sum of the losses in nats, number of tokens scored, and the states after them.
    """
    if precision == "mixed":
        model = in_mixed_precision(model)
    fresh = model.init_state()

    def read(
        row: Batch, state: ModelState
    ) -> tuple[Float[Array, "seq d_model"], ModelState]:
        return model.features(
            row["inputs"],
            select(row["reset"], fresh, state),
            document_starts=row.get("document_starts"),
        )

    features, carry = vmap(read)(batch, carry)
    scores = score_tokens(model, features, batch, block_len=block_len)
    n_scored = jnp.sum(batch["mask"], dtype=jnp.int32)
    return jnp.sum(scores.loss), n_scored, jax.lax.stop_gradient(carry)
