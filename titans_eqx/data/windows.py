"""Windows: a text cut into examples."""

import numpy as np

from titans_eqx.data.corpus import AbstractCorpus
from titans_eqx.data.errors import DataError
from titans_eqx.data.example import Dataset, Example, check_index


class TextWindows:
    """Windows of a text; the target of each token is the token after it.

    Windows follow each other, so every token but the first is predicted exactly once; a
    last stretch shorter than a window is left out.
    """

    def __init__(self, corpus: AbstractCorpus, seq_len: int) -> None:
        """Cut a corpus into windows of `seq_len` predicted tokens.

        Raises:
            DataError: If the corpus is too short for one window.
        """
        if seq_len < 1:
            raise DataError(f"data.seq_len must be at least 1, got {seq_len}")
        if corpus.n_tokens < seq_len + 1:
            raise DataError(
                f"{corpus.name} has {corpus.n_tokens} tokens, one example needs "
                f"{seq_len + 1} (data.seq_len + 1): lower data.seq_len (--length of an "
                "evaluation) or give more text in data.path (data.eval_path for "
                "held-out text)"
            )
        self._corpus = corpus
        self._seq_len = seq_len

    def __len__(self) -> int:
        """Return the number of windows."""
        return (self._corpus.n_tokens - 1) // self._seq_len

    def __getitem__(self, index: int) -> Example:
        """Read a window.

        Raises:
            IndexError: If there is no such window.
            DataError: If a file vanished, shrank or cannot be read.
        """
        check_index(index, self)
        start = index * self._seq_len
        tokens = self._corpus.read(start, start + self._seq_len + 1).astype(np.int32)
        mask = np.ones(self._seq_len, dtype=bool)
        return {"inputs": tokens[:-1], "targets": tokens[1:], "mask": mask}


class WindowStreams:
    """The windows of a text in the order in which `batch_size` streams are read.

    Each stream is a contiguous part of the text, and all have the same length; a last
    stretch too short for that is left out. Example `i` is of row `i % batch_size` of a
    batch; it goes on where the example `batch_size` before it stopped, unless its
    `reset` is True: then a stream starts.
    """

    def __init__(self, windows: Dataset, batch_size: int) -> None:
        """Cut windows into streams.

        Raises:
            DataError: If there are fewer windows than streams.
        """
        self._windows = windows
        self._batch_size = batch_size
        self._n_steps = len(windows) // batch_size
        if self._n_steps == 0:
            raise DataError(
                f"{len(windows)} windows are too few for {batch_size} streams: lower "
                "data.seq_len or train.batch_size, or give more text in data.path"
            )

    def __len__(self) -> int:
        """Return the number of windows in all streams."""
        return self._n_steps * self._batch_size

    def __getitem__(self, index: int) -> Example:
        """Read a window.

        Raises:
            IndexError: If there is no such window.
            DataError: If a file vanished, shrank or cannot be read.
        """
        check_index(index, self)
        step, row = divmod(index, self._batch_size)
        window = self._windows[row * self._n_steps + step]
        return {**window, "reset": np.asarray(step == 0)}
