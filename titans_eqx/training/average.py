"""An exponential moving average of the weights, which often predicts better."""

import math

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree


def add_to_average(
    average: PyTree[Array],
    parameters: PyTree[Array],
    n_updates: Int[Array, ""],
    decay: float,
) -> PyTree[Array]:
    """The average with the parameters of one more step.

    Parameters of `i` updates ago have the weight `decay**i`, over the sum of all
    weights: after the first update the average is the parameters, whatever it was. That
    is the average from zero with its bias corrected (Adam, arXiv 1412.6980, section 3).

    Args:
        average: Before the update.
        parameters: After it.
        n_updates: Of the parameters so far, at least one.
        decay: In [0, 1).
    """
    # By expm1, since 1 - decay^n has few digits while it is small.
    weights = -jnp.expm1(n_updates.astype(float) * math.log(decay))
    return optax.incremental_update(parameters, average, (1 - decay) / weights)
