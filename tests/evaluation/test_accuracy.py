import pytest

from tests.evaluation.oracle import Oracle
from titans_eqx.config import DataConfig, RunConfig, SelectiveCopyingConfig
from titans_eqx.errors import UserError
from titans_eqx.evaluation import AccuracySettings
from titans_eqx.evaluation.accuracy import accuracy

TASK = SelectiveCopyingConfig(vocab_size=16, n_copied=6)


def test_accuracy_counts_every_answer_of_each_length():
    config = RunConfig(data=DataConfig(source="task", seq_len=40, task=TASK))
    table = accuracy(
        Oracle(3), config, AccuracySettings(lengths=(40, 80), n_examples=5)
    )
    assert [(line["length"], line["cases"]) for line in table] == [(40, 30), (80, 30)]
    assert [line["accuracy"] for line in table] == pytest.approx([2 / 3, 2 / 3])
    (line,) = accuracy(Oracle(3), config, AccuracySettings(n_examples=1))
    assert line["length"] == 40


def test_a_run_on_text_is_refused():
    with pytest.raises(UserError, match="a run trained on a task; .* 'stdlib'"):
        accuracy(Oracle(2), RunConfig(), AccuracySettings())
