"""A text that the model writes while it is trained."""

from typing import Final

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from titans_eqx.data.dataset import TextData
from titans_eqx.data.example import spread
from titans_eqx.generation import Sampling, generate
from titans_eqx.sharding.processes import is_primary, on_first_device
from titans_eqx.training.context import TrainContext
from titans_eqx.training.state import TrainState

PROMPT_LEN: Final = 64  # tokens of the eval text that a sample continues
# A low temperature alone ends in long runs of spaces, a high one in noise.
SAMPLE_SAMPLING: Final = Sampling(temperature=0.9, min_p=0.05)


def write_sample(
    context: TrainContext, data: TextData, state: TrainState, step: int
) -> str | None:
    """Let the model continue a passage of the eval text.

    Args:
        context: The run.
        data: Its texts, with a tokenizer.
        state: The model.
        step: Decides, with the seed of the run, what is drawn.

    Returns:
        The passage and what was drawn; None in other processes than process 0, which
        only help to gather the model.
    """
    parameters, frozen = on_first_device((state.parameters, state.frozen))
    if not is_primary():
        return None
    train = context.config.train
    prompt = spread(data.eval_examples, 2)[-1]["inputs"][:PROMPT_LEN]
    tokens, _ = generate(
        eqx.combine(parameters, frozen, context.static),
        jnp.asarray(prompt),
        train.sample_len,
        key=jr.fold_in(jr.key(train.seed), step),
        sampling=SAMPLE_SAMPLING,
    )
    assert data.tokenizer is not None
    return data.tokenizer.decode(np.concatenate([prompt, np.asarray(tokens)]))
