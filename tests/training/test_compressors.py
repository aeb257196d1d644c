"""The last line of a run: what the model and compressors need for the same bytes."""

import gzip
import math

import numpy as np
import pytest

from titans_eqx.data import open_dataset
from titans_eqx.training.compressors import beside_compressors


def test_all_read_the_bytes_that_the_model_is_scored_on(small_config, tmp_path):
    for i in range(40):
        (tmp_path / f"{i}.txt").write_text(f"document {i} " * (i % 4) + f"of {i}")
    config = small_config(
        data__path=str(tmp_path),
        data__eval_fraction=0.5,
        data__packing="documents",
        data__max_documents=4,
    )
    data = open_dataset(config)
    examples = [data.eval_examples[i] for i in range(len(data.eval_examples))]
    is_scored = np.concatenate([example["mask"] for example in examples])
    targets = np.concatenate([example["targets"] for example in examples])
    assert not np.all(is_scored)  # rows are filled up with zeros
    text = targets[is_scored].astype(np.uint8).tobytes().replace(b"\0", b"")
    lines = beside_compressors(data, examples, {"eval_loss": math.log(2)})
    n_scored = np.sum(is_scored)  # a bit each
    assert lines[0] == f"bits per byte on {n_scored:,} tokens of held-out text:"
    bits = [float(line.split()[-1]) for line in lines[1:3]]
    expected = [n_scored, 8 * len(gzip.compress(text, 9))]
    assert bits == pytest.approx(np.divide(expected, len(text)), abs=5e-4)
