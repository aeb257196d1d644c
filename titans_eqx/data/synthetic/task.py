"""What every task is, and its rows by number."""

from collections.abc import Iterator, Sequence
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np

from titans_eqx.data.errors import DataError
from titans_eqx.data.rows import UNSCORED

SPLITS: Final = ("train", "held_out")  # draw from streams of their own


@runtime_checkable
class Task(Protocol):
    """A way to draw rows (see `titans_eqx.data.rows`) whose right answers are known."""

    @property
    def vocab_size(self) -> int:
        """Every token is in `range(vocab_size)`."""
        ...

    @property
    def min_len(self) -> int:
        """The shortest row that the task fits in."""
        ...

    def row(self, rng: np.random.Generator, seq_len: int) -> np.ndarray:
        """Draw a row.

        Args:
            rng: Where the draws come from.
            seq_len: Tokens in the row, at least `min_len`.

        Returns:
            Tokens and targets.
        """
        ...


class TaskRows:
    """Rows of a task as a function of (seed, split, index)."""

    def __init__(
        self,
        task: Task,
        seq_len: int,
        n_rows: int,
        seed: int,
        split: Literal["train", "held_out"],
    ) -> None:
        """Set up the rows; draws none.

        Args:
            task: The task.
            seq_len: Tokens in a row.
            n_rows: How many rows there are.
            seed: Decides all draws, together with split and index.
            split: Training and held-out rows have nothing in common.

        Raises:
            DataError: If the task does not fit the length.
        """
        if seq_len < task.min_len:
            raise DataError(
                f"data.seq_len (and data.lengths) must be at least {task.min_len} for "
                f"{task}, got {seq_len}"
            )
        self._task = task
        self._seq_len = seq_len
        self._n_rows = n_rows
        self._entropy = (seed, SPLITS.index(split))

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._n_rows

    def __iter__(self) -> Iterator[np.ndarray]:
        """Draw all rows in order."""
        return (self[index] for index in range(self._n_rows))

    def __getitem__(self, index: int) -> np.ndarray:
        """Draw a row.

        Raises:
            IndexError: If there is no such row.
        """
        if not 0 <= index < self._n_rows:
            raise IndexError(f"row {index} of {self._n_rows}")
        rng = np.random.default_rng([*self._entropy, index])
        return self._task.row(rng, self._seq_len)


def unscored_row(tokens: np.ndarray) -> np.ndarray:
    """A row of which nothing is scored yet.

    Args:
        tokens: Tokens of the row.

    Returns:
        The row; set targets in place.
    """
    return np.stack([tokens, np.full_like(tokens, UNSCORED)]).astype(np.int32)


def text_row(parts: Sequence[tuple[bytes, bool]], seq_len: int) -> np.ndarray:
    """A row of bytes that predicts the next byte wherever a part says so.

    Args:
        parts: Pieces of text, and whether their bytes are scored; together
            `seq_len + 1` bytes, and the first byte is not scored.
        seq_len: Tokens in the row.

    Returns:
        The row.
    """
    text = np.frombuffer(b"".join(part for part, _ in parts), np.uint8)
    text = text.astype(np.int32)
    is_scored = np.concatenate([np.full(len(part), scored) for part, scored in parts])
    assert text.size == seq_len + 1, "the parts do not fill the row"
    row = unscored_row(text[:-1])
    row[1] = np.where(is_scored[1:], text[1:], UNSCORED)
    return row


def check(task: object, **rules: bool) -> None:
    """Refuse a task whose fields are out of range.

    Args:
        task: The task.
        **rules: For each field whether it is all right.

    Raises:
        DataError: Naming the task and the first wrong field.
    """
    for name, is_right in rules.items():
        if not is_right:
            value = getattr(task, name)
            raise DataError(f"data.task.{name} = {value!r} cannot be used by {task}")
