"""How well a model predicts a text beside what compressors make of it."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from titans_eqx.data import compressed_bits_per_byte
from titans_eqx.data.dataset import TaskData, TextData
from titans_eqx.data.example import Example


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
        scores: Of the model on them, among them `eval_loss`.

    Returns:
        The lines; none if there is no text, or no tokenizer to turn it back into bytes.
    """
    if not isinstance(data, TextData) or data.tokenizer is None:
        return []
    ids = np.concatenate([example["targets"][example["mask"]] for example in examples])
    text = data.tokenizer.decode_bytes(ids[ids != data.tokenizer.separator])
    bits = scores["eval_loss"] * len(ids) / math.log(2)
    by_name = {"this model": bits / len(text), **compressed_bits_per_byte([text])}
    return [
        f"bits per byte on {len(ids):,} tokens of held-out text:",
        *(f"  {name:<12}{bits:.3f}" for name, bits in by_name.items()),
    ]
