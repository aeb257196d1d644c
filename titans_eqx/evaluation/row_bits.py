"""What each held-out row costs, part by part: kept, so that runs can be paired.

Rows are those of the trained length, and longer ones. Their parts are ranges of
positions and kinds of context (`repeats.py`), the same for every model.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from pydantic import BaseModel, ValidationError

from titans_eqx.config import DataConfig
from titans_eqx.data import TextWindows, open_texts, spread
from titans_eqx.errors import UserError
from titans_eqx.evaluation.repeats import ALL, contexts_of_rows
from titans_eqx.evaluation.scorer import Scorer
from titans_eqx.evaluation.table import doubling_ranges, ratio_per_row
from titans_eqx.files import read_regular

REPEAT_LEN: Final = 4  # tokens seen before that make a repeat
WINDOW: Final = 64  # tokens to a near repeat, whatever a model attends to
LONGER: Final = 4  # rows of so many times the trained length are read too
N_ROWS: Final = 256  # of the trained length; of the longer ones as many tokens
MAX_BYTES: Final = 2**26  # of a file that is read

Place: TypeAlias = tuple[int, str, int, int]
"""Length of the rows, kind of context, first and last position of a part."""


class RowPart(BaseModel):
    """The same part of all rows of a length."""

    length: int  # of the rows, in tokens
    context: str  # kind of context; `ALL` for any
    start: int  # of the positions
    stop: int
    bits: list[float]  # of each row: sum over the tokens of the part
    tokens: list[int]  # of each row: how many these are

    @property
    def place(self) -> Place:
        """Which part of which rows."""
        return self.length, self.context, self.start, self.stop

    def per_row(self) -> np.ndarray:
        """Bits per token, (rows,), whose mean is that of all tokens together.

        See `ratio_per_row`: rows have unequal numbers of tokens.
        """
        return ratio_per_row(np.asarray(self.bits), np.asarray(self.tokens))


class RowBits(BaseModel):
    """What a model has been measured to need."""

    text: str  # fingerprint of the held-out text
    parameters: int
    parts: list[RowPart]


def measure_row_bits(scorer: Scorer, data: DataConfig, parameters: int) -> RowBits:
    """Score the held-out text of a run; a part without tokens is left out.

    Bits are those of a token over the bytes that a token has in this text: with the
    tokenizer "bytes", bits per byte are exact in every part.

    Raises:
        DataError: If the held-out text is too short for one of the longer rows.
    """
    _, text = open_texts(data)
    bits_per_nat = text.bits_per_byte(1.0)
    parts: list[RowPart] = []
    for factor in (1, LONGER):
        length = factor * data.seq_len
        rows = spread(TextWindows(text, length), N_ROWS // factor)
        bits = bits_per_nat * np.stack([one.loss for one in scorer(rows)])
        inputs = np.stack([row["inputs"] for row in rows])
        parts.extend(split_rows(bits, inputs))
    return RowBits(text=text.fingerprint, parameters=parameters, parts=parts)


def split_rows(bits: np.ndarray, inputs: np.ndarray) -> Iterator[RowPart]:
    """The parts of rows, those without tokens left out.

    Args:
        bits: (rows, seq), of each token to be predicted.
        inputs: (rows, seq), the tokens before them.
    """
    length = bits.shape[1]
    counted = contexts_of_rows(inputs, REPEAT_LEN, WINDOW)
    places = [(ALL, *positions) for positions in doubling_ranges(length)]
    places += [(name, 0, length) for name in counted]
    for context, start, stop in dict.fromkeys(places):
        is_in = counted[context][:, start:stop]
        if is_in.any():
            yield RowPart(
                length=length,
                context=context,
                start=start,
                stop=stop,
                bits=np.where(is_in, bits[:, start:stop], 0).sum(axis=1).tolist(),
                tokens=is_in.sum(axis=1).tolist(),
            )


def read_row_bits(path: Path) -> RowBits:
    """Read what was written as JSON.

    Raises:
        UserError: If the file is something else.
    """
    try:
        return RowBits.model_validate_json(read_regular(path, MAX_BYTES))
    except ValidationError as error:
        raise UserError(
            f"{path} is not what a sweep has measured; remove it to measure again."
        ) from error
