"""What a model weighs: its parameters, and what the state of its stream holds."""

from functools import cache

import equinox as eqx
import jax.random as jr

from titans_eqx.config import ModelConfig
from titans_eqx.models import build_model
from titans_eqx.nn.tree import n_bytes, n_elements


def model_sizes(config: ModelConfig, length: int | None = None) -> dict[str, int]:
    """The columns of a model's sizes; no array is made.

    Args:
        config: The model.
        length: Tokens that the stream has read: a window that they do not fill holds so
            many only, so that attention over all of them grows. None: any number.
    """
    if length is not None:
        attention = config.attention
        window = min(attention.window, length)
        changed = attention.model_copy(update={"window": window})
        config = config.model_copy(update={"attention": changed})
    # Frozen, so it has a hash, which pydantic makes where no type checker sees it.
    return dict(_sizes(config))  # pyright: ignore[reportArgumentType]


@cache
def _sizes(config: ModelConfig) -> dict[str, int]:
    model = eqx.filter_eval_shape(build_model, config, key=jr.key(0))
    state = eqx.filter_eval_shape(lambda model: model.init_state(), model)
    return {"state bytes": n_bytes(state), "parameters": n_elements(model)}
