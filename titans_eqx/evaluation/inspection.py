"""What every memory of a model does at each token of a text."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from titans_eqx.data import Tokenizer
from titans_eqx.generation.prefill import BLOCK_LEN
from titans_eqx.memory import MemoryStats
from titans_eqx.models import ModelState, TitansLM
from titans_eqx.sharding.varying import scan
from titans_eqx.training.loss import token_loss

# The paper's letters for the gates, as records and pictures name them.
SYMBOLS: Final = {"decay": "alpha", "momentum": "eta", "learning_rate": "theta"}


class Inspection(eqx.Module):
    """Loss and memories at each token of a text."""

    loss: Float[Array, " seq"]  # nats; NaN for the first token, which nothing predicts
    layers: dict[int, MemoryStats]  # by layer, those with a memory; leading axis: seq


def inspect_tokens(
    model: TitansLM, tokens: Int[Array, " seq"], state: ModelState | None = None
) -> tuple[Inspection, ModelState]:
    """Read tokens one by one, as `model.step` does, and probe the memories.

    A pure function, to be compiled with `eqx.filter_jit`.

    Args:
        model: The model.
        tokens: Token ids, at least one.
        state: Where the stream stands; None for a fresh sequence.
    """
    start = model.init_state() if state is None else state
    inspection, _, state = _inspect_block(model, tokens, _unknown(model), start)
    return inspection, state


def inspect_text(
    model: TitansLM,
    tokens: np.ndarray,
    on_progress: Callable[[int], None] = lambda n_tokens: None,
) -> Inspection:
    """`inspect_tokens` for a whole text, in blocks of one compiled length.

    Args:
        model: The model.
        tokens: Token ids, at least one.
        on_progress: Called with the number of tokens read since the last call.

    Returns:
        The inspection, as NumPy arrays.
    """
    state, logits, parts = model.init_state(), _unknown(model), []
    for first in range(0, len(tokens), BLOCK_LEN):
        block = np.zeros(BLOCK_LEN, np.int32)
        n_tokens = min(BLOCK_LEN, len(tokens) - first)
        block[:n_tokens] = tokens[first : first + n_tokens]
        part, logits, state = _inspect_compiled(
            model, jnp.asarray(block), logits, state
        )
        parts.append(jax.tree.map(lambda x, n=n_tokens: np.asarray(x)[:n], part))
        on_progress(n_tokens)
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def records(
    inspection: Inspection, tokens: np.ndarray, tokenizer: Tokenizer
) -> Iterator[dict[str, Any]]:
    """The inspection as one object for each token, of plain values for JSON.

    Args:
        inspection: Of the tokens.
        tokens: The text that was inspected.
        tokenizer: Turns a token into text.

    Yields:
        The object of a token; a loss that is not known is None.
    """
    for i, token in enumerate(tokens.tolist()):
        loss = float(inspection.loss[i])
        yield {
            "position": i,
            "token": token,
            "text": tokenizer.decode([token]),
            "loss": None if np.isnan(loss) else loss,
            "layers": [
                {
                    "layer": layer,
                    "surprise": stats.surprise[i].tolist(),
                    **{
                        SYMBOLS.get(name, name): gate[i].tolist()
                        for name, gate in stats.gates.items()
                    },
                    "memory_norm": stats.weight_norm[i].tolist(),
                }
                for layer, stats in inspection.layers.items()
            ],
        }


def _unknown(model: TitansLM) -> Float[Array, " vocab"]:
    """Logits in place of those that would predict the first token."""
    logits = jax.eval_shape(lambda: model.step(jnp.int32(0), model.init_state())[0])
    return jnp.full(logits.shape, jnp.nan, logits.dtype)


def _inspect_block(
    model: TitansLM,
    tokens: Int[Array, " seq"],
    logits: Float[Array, " vocab"],
    state: ModelState,
) -> tuple[Inspection, Float[Array, " vocab"], ModelState]:
    """Inspect tokens, given the logits that predict the first of them."""
    is_scored = jnp.ones((), bool)

    def body(
        carry: tuple[Float[Array, " vocab"], ModelState], token: Int[Array, ""]
    ) -> tuple[
        tuple[Float[Array, " vocab"], ModelState],
        tuple[Float[Array, ""], dict[int, MemoryStats]],
    ]:
        logits, state = carry
        loss = token_loss(logits, token, is_scored).loss
        logits, state, stats = model.probe(token, state)
        return (logits, state), (loss, stats)

    (logits, state), (loss, stats) = scan(body, (logits, state), tokens)
    return Inspection(loss, stats), logits, state


_inspect_compiled = eqx.filter_jit(_inspect_block)
