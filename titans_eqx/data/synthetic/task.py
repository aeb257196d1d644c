"""What every task is, and its examples by number."""

from collections.abc import Iterator
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np

from titans_eqx.data.errors import DataError
from titans_eqx.data.example import Dataset, Example, check_index

SPLITS: Final = ("train", "eval")  # draw from streams of their own


@runtime_checkable
class Task(Protocol):
    """A way to draw examples whose right answers are known."""

    @property
    def vocab_size(self) -> int:
        """Every token is in `range(vocab_size)`."""
        ...

    @property
    def min_len(self) -> int:
        """The shortest sequence that the task fits in."""
        ...

    def example(self, rng: np.random.Generator, seq_len: int) -> Example:
        """Draw an example of `seq_len` tokens, at least `min_len`."""
        ...


class TaskExamples:
    """Examples of a task as a function of (seed, split, index)."""

    def __init__(
        self,
        task: Task,
        seq_len: int,
        n_examples: int,
        seed: int,
        split: Literal["train", "eval"],
    ) -> None:
        """Set up the examples, which share nothing with the other split; draws none.

        Raises:
            DataError: If the task does not fit the length.
        """
        if seq_len < task.min_len:
            raise DataError(
                "data.seq_len (and data.lengths; --length of an evaluation) must be "
                f"at least {task.min_len} for {task}, got {seq_len}"
            )
        self._task = task
        self._seq_len = seq_len
        self._n_examples = n_examples
        self._entropy = (seed, SPLITS.index(split))

    def __len__(self) -> int:
        """Return the number of examples."""
        return self._n_examples

    def __iter__(self) -> Iterator[Example]:
        """Draw all examples in order."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Example:
        """Draw an example.

        Raises:
            IndexError: If there is no such example.
        """
        check_index(index, self)
        rng = np.random.default_rng([*self._entropy, index])
        return self._task.example(rng, self._seq_len)


def answered_at(
    inputs: np.ndarray, positions: np.ndarray | list[int], answers: np.ndarray
) -> Example:
    """The example that asks for answers at some positions and for nothing else."""
    targets = np.zeros(inputs.shape, np.int32)
    mask = np.zeros(inputs.shape, bool)
    targets[positions] = answers
    mask[positions] = True
    return {"inputs": inputs.astype(np.int32), "targets": targets, "mask": mask}


class EveryToken:
    """Examples that ask for each next token, predictable or not, not for answers."""

    def __init__(self, examples: Dataset) -> None:
        """Of examples whose answers follow as tokens where they are asked for."""
        self._examples = examples

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        """Draw an example; nothing is known of what follows its last token."""
        inputs = self._examples[index]["inputs"]
        return answered_at(inputs, np.arange(inputs.size - 1), inputs[1:])


def answered_at_the_end(text: bytes, answer: bytes) -> Example:
    """The example of a text in bytes and an answer to it, whose bytes are asked for."""
    tokens = np.frombuffer(text + answer, np.uint8)
    positions = np.arange(len(text) - 1, tokens.size - 1)
    return answered_at(tokens[:-1], positions, tokens[len(text) :])
