from pathlib import Path

import numpy as np
import pytest

from titans_eqx.config import DataConfig
from titans_eqx.data import load_tokenizer
from titans_eqx.errors import UserError
from titans_eqx.evaluation.held_out import held_out_examples

TOKENIZER = Path(__file__).parents[2] / "configs" / "text" / "tokenizer.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for i in range(6):
        text = "".join(f"def function_{i}_{j}(self): return {j}\n" for j in range(40))
        (folder / f"{i}.py").write_text(text)
    return folder


def test_each_target_stands_for_its_own_bytes(folder):
    pytest.importorskip("tokenizers")
    data = DataConfig(path=str(folder), tokenizer=str(TOKENIZER), eval_fraction=0.5)
    text = held_out_examples(data, 100, 4)
    assert (text.inputs.shape, text.n_bytes.shape) == ((4, 100), (4, 100))
    tokenizer = load_tokenizer(str(TOKENIZER))
    for example, n_bytes in zip(text.examples, text.n_bytes, strict=True):
        targets = example["targets"]
        is_text = targets != tokenizer.separator
        assert n_bytes.sum() == len(tokenizer.decode_bytes(targets[is_text]))
        assert np.all(n_bytes[~is_text] == 0)
    assert len(np.unique(text.n_bytes)) > 2


def test_a_task_has_no_held_out_text():
    with pytest.raises(UserError, match="trained on a task, not on a text"):
        held_out_examples(DataConfig(source="task"), None, 4)
