"""What every memory of a model does at each token of a text."""

import itertools
from collections.abc import Iterator
from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from titans_eqx.data import Tokenizer
from titans_eqx.memory import MemoryFigures, observe
from titans_eqx.models import AbstractMemoryMixer, Block, ModelState, TitansLM
from titans_eqx.sharding.varying import scan

PIECE_LEN: Final = 256  # tokens inspected by one call of a compiled function


class Inspection(eqx.Module):
    """Figures of a text, token by token."""

    loss: Float[Array, " seq"]  # nats needed for each token; the first one is not known
    layers: dict[int, MemoryFigures]  # by layer, those with a memory; leading axis: seq


def inspect_tokens(
    model: TitansLM, tokens: Int[Array, " seq"], state: ModelState | None = None
) -> tuple[Inspection, ModelState]:
    """Read tokens one by one and watch the memories.

    A pure function, to be compiled with `eqx.filter_jit`; the model reads exactly as
    `model.step` does.

    Args:
        model: The model.
        tokens: Token ids, at least one.
        state: Where the stream stands; None for a fresh sequence.

    Returns:
        The figures, and the state after the last token. The loss of the first token is
        NaN: its prediction was made before.
    """
    unknown = jnp.full(model.embedding.shape[:1], jnp.nan, model.embedding.dtype)
    start = model.init_state() if state is None else state
    inspection, _, state = _inspect_piece(model, tokens, unknown, start)
    return inspection, state


def inspect_text(model: TitansLM, tokens: np.ndarray) -> Inspection:
    """`inspect_tokens` for a whole text, in pieces of one compiled length.

    Args:
        model: The model.
        tokens: Token ids, at least one.

    Returns:
        The figures, as NumPy arrays.
    """
    state, parts = model.init_state(), []
    logits = jnp.full(model.embedding.shape[:1], jnp.nan, model.embedding.dtype)
    for first in range(0, len(tokens), PIECE_LEN):
        piece = np.zeros(PIECE_LEN, np.int32)
        count = min(PIECE_LEN, len(tokens) - first)
        piece[:count] = tokens[first : first + count]
        part, logits, state = _inspect_compiled(
            model, jnp.asarray(piece), logits, state
        )
        parts.append(jax.tree.map(lambda x, n=count: np.asarray(x)[:n], part))
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def records(
    inspection: Inspection, tokens: np.ndarray, tokenizer: Tokenizer
) -> Iterator[dict[str, Any]]:
    """The figures as one table for each token.

    Args:
        inspection: The figures.
        tokens: The text that was inspected.
        tokenizer: Turns a token into text.

    Yields:
        Plain values for JSON; a loss that is not known is None.
    """
    for i, token in enumerate(tokens):
        loss = float(inspection.loss[i])
        yield {
            "position": i,
            "token": int(token),
            "text": tokenizer.decode([token]),
            "loss": None if np.isnan(loss) else loss,
            "layers": [
                {
                    "layer": layer,
                    "surprise": figures.surprise[i].tolist(),
                    "alpha": figures.decay[i].tolist(),
                    "eta": figures.momentum[i].tolist(),
                    "theta": figures.step[i].tolist(),
                    "memory_norm": figures.weight_norm[i].tolist(),
                }
                for layer, figures in inspection.layers.items()
            ],
        }


def _inspect_piece(
    model: TitansLM,
    tokens: Int[Array, " seq"],
    logits: Float[Array, " vocab"],
    state: ModelState,
) -> tuple[Inspection, Float[Array, " vocab"], ModelState]:
    """Figures of a piece, given the prediction of its first token."""

    def visit(block: Block, x: Array, state: PyTree) -> tuple[Array, PyTree]:
        figures = None
        if isinstance(block.mixer, AbstractMemoryMixer):
            seen, memory = block.mixer.memory_view(block.mixer_norm(x), state)
            figures = observe(block.mixer.memory, seen, memory)
        x, state = block.step(x, state)
        return x, (state, figures)

    def body(
        carry: tuple[Float[Array, " vocab"], ModelState], token: Int[Array, ""]
    ) -> tuple[tuple[Float[Array, " vocab"], ModelState], PyTree]:
        logits, state = carry
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, token)
        x, kept = model.walk(visit, model.embed(token), state)
        state = tuple(tuple(state for state, _ in stack) for stack in kept)
        figures = tuple(tuple(figures for _, figures in stack) for stack in kept)
        return (model.predict(x), state), (loss, figures)

    (logits, state), (loss, figures) = scan(body, (logits, state), tokens)
    return Inspection(loss, dict(_by_layer(model, figures))), logits, state


_inspect_compiled = eqx.filter_jit(_inspect_piece)


def _by_layer(model: TitansLM, figures: PyTree) -> Iterator[tuple[int, MemoryFigures]]:
    """Figures of each layer with a memory, first layer first.

    Args:
        model: Knows how often each stack repeats its pattern.
        figures: For each stack and block of its pattern None or figures, whose axes are
            tokens and repeats.
    """
    layers = itertools.count()
    for stack, pattern in zip(model.stacks, figures, strict=True):
        for repeat, block in itertools.product(range(stack.n_repeats), pattern):
            layer = next(layers)
            if block is not None:
                yield layer, jax.tree.map(lambda x, n=repeat: x[:, n], block)
