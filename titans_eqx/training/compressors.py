"""How well a model predicts a text, and beside what compressors make of it."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from titans_eqx.data import compressed_bits_per_byte
from titans_eqx.data.dataset import TaskData, TextData
from titans_eqx.data.example import Example


def eval_bits_per_byte(
    data: TextData | TaskData, examples: Sequence[Example], loss: float
) -> dict[str, float]:
    """A loss as bits for each byte of the text that it was measured on.

    It can be compared between tokenizers and with compressors. Without a tokenizer, as
    shards may be, a token counts for as many bytes as in the whole held-out text.

    Args:
        data: Of the run.
        examples: What was measured on.
        loss: The mean over their targets, in nats.

    Returns:
        The `eval_bits_per_byte`; nothing if there is no text.
    """
    if not isinstance(data, TextData):
        return {}
    n_targets, text = _targets(data, examples)
    bits = (
        loss * n_targets / math.log(2) / len(text)
        if text
        else data.eval_corpus.bits_per_byte(loss)
    )
    return {"eval_bits_per_byte": bits}


def beside_compressors(
    data: TextData | TaskData,
    examples: Sequence[Example],
    scores: Mapping[str, int | float],
) -> list[str]:
    """Lines for the user with the bits per byte of the model and of compressors.

    All read the same bytes, those of the tokens that the model is scored on. It alone
    also has to say where documents end.

    Args:
        data: Of the run.
        examples: What was measured on, one after the other in the text.
        scores: Of the model on them, among them `eval_bits_per_byte`.

    Returns:
        The lines; none if there is no text, or no tokenizer to turn it back into bytes.
    """
    if not isinstance(data, TextData):
        return []
    n_targets, text = _targets(data, examples)
    if not text:
        return []
    by_name = {
        "this model": scores["eval_bits_per_byte"],
        **compressed_bits_per_byte([text]),
    }
    return [
        f"bits per byte on {n_targets:,} tokens of held-out text:",
        *(f"  {name:<12}{bits:.3f}" for name, bits in by_name.items()),
    ]


def _targets(data: TextData, examples: Sequence[Example]) -> tuple[int, bytes]:
    """How many tokens are scored, and their text; empty where it cannot be had."""
    ids = np.concatenate([example["targets"][example["mask"]] for example in examples])
    if data.tokenizer is None:
        return len(ids), b""
    return len(ids), data.tokenizer.decode_bytes(ids[ids != data.tokenizer.separator])
