"""Windows: a text cut into examples."""

import numpy as np

from titans_eqx.data.corpus import AbstractCorpus
from titans_eqx.data.errors import DataError
from titans_eqx.data.example import Example, check_index


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
                f"{seq_len + 1} (data.seq_len + 1): lower data.seq_len or give more "
                "text in data.path (data.eval_path for held-out text)"
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
