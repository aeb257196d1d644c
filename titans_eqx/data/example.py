"""Examples: what a dataset holds; a batch is some of them, stacked.

An example is a dict of named arrays. To train a language model it has, all of shape
(seq_len,): `inputs`, the tokens read; `targets`, below each the token to be predicted
once it has been read; `mask`, where that prediction is scored. Where it is not, the
target is 0. If an example is several sequences, it also has `document_starts`: where
all but the first of them start, seq_len where there are fewer.
"""

from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

Example: TypeAlias = dict[str, np.ndarray]


@runtime_checkable
class Dataset(Protocol):
    """Any random-access source of examples with the same names and shapes."""

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def __getitem__(self, index: int) -> Example:
        """Read an example; the index is in `range(len(self))`."""
        ...


def spread(dataset: Dataset, count: int) -> list[Example]:
    """Examples spread evenly over a dataset; all if there are fewer than asked for."""
    count = min(count, len(dataset))
    return [dataset[i * len(dataset) // count] for i in range(count)]


def check_index(index: int, dataset: Dataset) -> None:
    """Refuse an index outside a dataset.

    Raises:
        IndexError: If there is no such example.
    """
    if not 0 <= index < len(dataset):
        raise IndexError(f"example {index} of {len(dataset)}")
