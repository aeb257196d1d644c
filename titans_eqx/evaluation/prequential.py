"""A text read once from its start to its end, as a compressor would.

Every token is predicted from all before it, with the state carried through; what that
costs is the length of the code that the model would make of the text (prequential
coding). Compressors are given the same bytes.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from titans_eqx.data import Tokenizer, compressed_bits_per_byte
from titans_eqx.errors import UserError
from titans_eqx.evaluation.plots import plot_curves
from titans_eqx.evaluation.scorer import Scorer
from titans_eqx.evaluation.table import Table, doubling_ranges
from titans_eqx.files import read_regular

FIRST_END: Final = 1024  # tokens in the first line; each next one has twice as many
MAX_TEXT_BYTES: Final = 2**28
MODEL: Final = "model"


@dataclass(frozen=True, kw_only=True)
class PrequentialSettings:
    """Which text is read."""

    name: ClassVar[str] = "prequential"
    batch_size: ClassVar[int] = 1  # there is one text

    text: str  # path of the file


def prequential(
    scorer: Scorer, tokenizer: Tokenizer, settings: PrequentialSettings
) -> Table:
    """Read a text with a model, and with compressors.

    Returns:
        For its first 1,024 tokens, 2,048, 4,096 and so on, and for all: their bytes,
        the bits per byte of the model and of each compressor from the start, and those
        of the model since the line before.

    Raises:
        UserError: If the file cannot be read, or has less than two tokens.
    """
    path = Path(settings.text)
    try:
        tokens = tokenizer.encode(read_regular(path, MAX_TEXT_BYTES)).astype(np.int32)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    if len(tokens) < 2:
        raise UserError(f"{path} has {len(tokens)} tokens; give a longer text.")
    inputs, targets = tokens[:-1], tokens[1:]
    mask = np.ones(len(inputs), bool)
    (scores,) = scorer([{"inputs": inputs, "targets": targets, "mask": mask}])
    # Nothing predicts the first token: it costs as much as any.
    first = math.log(tokenizer.vocab_size)
    nats = np.concatenate([[first], scores.loss]).astype(np.float64)

    table: Table = []
    n_bytes_before, bits_before = 0, 0.0
    for start, end in doubling_ranges(len(tokens), FIRST_END):
        prefix = tokenizer.decode_bytes(tokens[:end])
        bits = bits_before + float(nats[start:end].sum()) / math.log(2)
        table.append(
            {
                "tokens": end,
                "bytes": len(prefix),
                MODEL: bits / len(prefix),
                "since the last": (bits - bits_before) / (len(prefix) - n_bytes_before),
            }
            | compressed_bits_per_byte([prefix])
        )
        bits_before, n_bytes_before = bits, len(prefix)
    return table


def plot_prequential(table: Table, title: str, path: Path) -> None:
    """Draw bits per byte from the start of the text, by the bytes read."""
    names = [name for name in table[0] if name not in ("tokens", "bytes")]
    curves = {name: [(line["bytes"], line[name]) for line in table] for name in names}
    plot_curves(curves, "bytes read", "bits per byte", title, path)
