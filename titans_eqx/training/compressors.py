"""How well a model predicts a text beside what compressors make of it."""

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

    Args:
        data: Of the run.
        examples: What was measured on, one after the other in the text.
        scores: Of the model, among them `eval_bits_per_byte` if there is a text.

    Returns:
        The lines; none if there is no text, or no tokenizer to turn it back into bytes.
    """
    if not isinstance(data, TextData) or data.tokenizer is None:
        return []
    ids = np.concatenate([example["targets"] for example in examples])
    others = compressed_bits_per_byte([data.tokenizer.decode_bytes(ids)])
    by_name = {"this model": scores["eval_bits_per_byte"], **others}
    return [
        f"bits per byte on {len(ids):,} tokens of held-out text:",
        *(f"  {name:<12}{bits:.3f}" for name, bits in by_name.items()),
    ]
