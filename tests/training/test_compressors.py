"""Bits per byte count the bytes that were read, not those of the whole text."""

import math

import numpy as np
import pytest

from titans_eqx.config import load_config
from titans_eqx.data.bpe import train_bpe
from titans_eqx.data.dataset import TextData, open_dataset
from titans_eqx.data.documents import find_documents
from titans_eqx.training.compressors import beside_compressors, eval_bits_per_byte

SEQ_LEN = 8


@pytest.fixture
def data(tmp_path):
    """A held-out text whose first half is long tokens, and the second single bytes."""
    pytest.importorskip("tokenizers")
    (tmp_path / "words.txt").write_text("memory\n" * 20)
    words = find_documents("stdlib", str(tmp_path / "words.txt"))
    (tmp_path / "tokenizer.json").write_bytes(train_bpe(words, 300))
    (tmp_path / "train.txt").write_text("memory" * 300)
    (tmp_path / "eval.txt").write_text("memory" * 50 + "zyxw" * 50)
    config = tmp_path / "config.toml"
    config.write_text(
        f"""
        [model]
        vocab_size = 300
        [data]
        path = "{tmp_path / "train.txt"}"
        eval_path = "{tmp_path / "eval.txt"}"
        tokenizer = "{tmp_path / "tokenizer.json"}"
        seq_len = {SEQ_LEN}
        """
    )
    opened = open_dataset(load_config(config))
    assert isinstance(opened, TextData)
    return opened


@pytest.mark.parametrize(("is_last", "n_bytes"), [(False, 6), (True, 1)])
def test_the_bytes_are_those_of_the_tokens_that_are_scored(data, is_last, n_bytes):
    index = len(data.eval_examples) - 1 if is_last else 0
    scores = eval_bits_per_byte(data, [data.eval_examples[index]], math.log(2))
    assert scores == {"eval_bits_per_byte": pytest.approx(1 / n_bytes)}


def test_padding_and_separators_are_no_text(data):
    example = dict(data.eval_examples[0])
    example["mask"] = np.arange(SEQ_LEN) < 2
    example["targets"] = np.array([data.tokenizer.separator, *example["targets"][1:]])
    scores = eval_bits_per_byte(data, [example], math.log(2))
    # One of the two that count is text.
    assert scores == {"eval_bits_per_byte": pytest.approx(2 / 6)}


def test_the_line_of_the_model_says_the_same(data):
    examples = [data.eval_examples[0]]
    scores = eval_bits_per_byte(data, examples, 3.0)
    _, line, *_ = beside_compressors(data, examples, scores)
    assert line.split() == ["this", "model", f"{scores['eval_bits_per_byte']:.3f}"]
