"""What each held-out row costs, part by part: kept, so that runs can be paired.

Rows are those of the trained length, and longer ones. Their parts are ranges of
positions and kinds of context (`repeats.py`), the same for every model.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from pydantic import BaseModel, ValidationError

from titans_eqx.config import DataConfig
from titans_eqx.errors import UserError
from titans_eqx.evaluation.held_out import held_out_examples
from titans_eqx.evaluation.repeats import ALL, contexts_of_rows
from titans_eqx.evaluation.scorer import Scorer
from titans_eqx.evaluation.table import doubling_ranges, ratio_per_row
from titans_eqx.files import read_regular

REPEAT_BYTES: Final = 4  # of text seen before that make a repeat, on average
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
    bits: list[float | None]  # of each row: sum over the part; None: not finite
    bytes: list[int]  # of each row: what these tokens stand for

    @property
    def place(self) -> Place:
        """Which part of which rows."""
        return self.length, self.context, self.start, self.stop

    def per_row(self) -> np.ndarray:
        """Bits per byte, (rows,), whose mean is that of all bytes together.

        See `ratio_per_row`: rows have unequal numbers of bytes.
        """
        return ratio_per_row(np.asarray(self.bits, float), np.asarray(self.bytes))


class RowBits(BaseModel):
    """What a model has been measured to need."""

    text: str  # fingerprint of the held-out text
    repeat_len: int  # tokens that make a repeat
    window: int  # tokens up to which a repeat is near
    parameters: int
    parts: list[RowPart]


def measure_row_bits(
    scorer: Scorer, data: DataConfig, parameters: int, window: int
) -> RowBits:
    """Score the held-out text of a run; a part without text is left out.

    Args:
        scorer: Of the model.
        data: Of the run.
        parameters: Of the model, to be kept with the rest.
        window: A repeat is near if it is at most so many tokens back.

    Raises:
        DataError: If the held-out text is too short for one of the longer rows, or its
            tokenizer cannot be loaded.
    """
    # The longest first: a text that is too short for them is refused at once.
    longer = held_out_examples(data, LONGER * data.seq_len, N_ROWS // LONGER)
    trained = held_out_examples(data, data.seq_len, N_ROWS)
    repeat_len = tokens_of_repeat(trained.n_bytes)
    parts: list[RowPart] = []
    for rows in (trained, longer):
        bits = np.stack([one.loss for one in scorer(rows.examples)]) / math.log(2)
        counted = contexts_of_rows(rows.inputs, repeat_len, window)
        parts.extend(split_rows(bits, rows.n_bytes, counted))
    return RowBits(
        text=trained.text.fingerprint,
        repeat_len=repeat_len,
        window=window,
        parameters=parameters,
        parts=parts,
    )


def tokens_of_repeat(n_bytes: np.ndarray) -> int:
    """How many tokens have on average the bytes that make a repeat, or more.

    Args:
        n_bytes: What each token stands for; separators, which stand for none, do not
            count, or bytes would be more than one token each.
    """
    return math.ceil(REPEAT_BYTES * np.count_nonzero(n_bytes) / n_bytes.sum())


def split_rows(
    bits: np.ndarray, n_bytes: np.ndarray, counted: dict[str, np.ndarray]
) -> Iterator[RowPart]:
    """The parts of rows, those without text left out.

    Args:
        bits: (rows, seq), of each token to be predicted.
        n_bytes: (rows, seq), what that token stands for.
        counted: (rows, seq), the tokens of each kind of context; see
            `contexts_of_rows`.
    """
    length = bits.shape[1]
    places = [(ALL, *positions) for positions in doubling_ranges(length)]
    places += [(name, 0, length) for name in counted]
    for context, start, stop in dict.fromkeys(places):
        is_in = counted[context][:, start:stop]
        part_bytes = np.where(is_in, n_bytes[:, start:stop], 0).sum(axis=1)
        if part_bytes.any():
            yield RowPart(
                length=length,
                context=context,
                start=start,
                stop=stop,
                bits=np.where(is_in, bits[:, start:stop], 0).sum(axis=1).tolist(),
                bytes=part_bytes.tolist(),
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
