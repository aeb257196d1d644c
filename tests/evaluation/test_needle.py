import pytest

from tests.evaluation.oracle import Oracle
from titans_eqx.config import DataConfig, NeedleConfig, RunConfig
from titans_eqx.evaluation import NeedleSettings
from titans_eqx.evaluation.needle import needle

# Answers of 5 bytes.
CONFIG = RunConfig(data=DataConfig(source="task", task=NeedleConfig(n_digits=4)))


def find(wrong_every, depths):
    settings = NeedleSettings(lengths=(300,), depths=depths, n_examples=8)
    return needle(Oracle(wrong_every), CONFIG, settings)


def test_a_needle_is_found_only_whole():
    found = find(10, (0.0, 1.0))
    assert [line["depth"] for line in found] == [0.0, 1.0]
    # Every tenth byte is wrong: one in every second answer.
    assert [line["accuracy"] for line in found] == [0.5, 0.5]
    (line,) = find(5, (0.5,))
    assert line["accuracy"] == 0


def test_each_depth_has_needles_of_its_own_and_all_lengths_the_same():
    answers = []

    def scorer(examples):
        answers.append(
            [bytes(one["targets"][one["mask"]].tolist()) for one in examples]
        )
        return Oracle(1000)(examples)

    settings = NeedleSettings(lengths=(300, 400), depths=(0.0, 1.0), n_examples=8)
    needle(scorer, CONFIG, settings)
    assert answers[:2] == answers[2:]
    assert len({answer for both in answers[:2] for answer in both}) == 16


def test_what_is_measured_before_an_interruption_is_printed(capsys):
    settings = NeedleSettings(lengths=(300,), depths=(0.25, 0.5), n_examples=8)
    printed = []

    def interrupted(examples):
        printed.append(capsys.readouterr().out)
        if len(printed) == 2:
            raise KeyboardInterrupt
        return Oracle(10)(examples)

    with pytest.raises(KeyboardInterrupt):
        needle(interrupted, CONFIG, settings)
    assert printed == ["", "length 300, depth 0.25: 4 of 8 found\n"]


def test_a_run_on_text_is_asked_for_passkeys():
    settings = NeedleSettings(lengths=(300,), depths=(0.5,), n_examples=2)
    (line,) = needle(Oracle(1000), RunConfig(), settings)
    assert (line["accuracy"], line["cases"]) == (1, 2)


def test_the_haystack_of_an_evaluation_can_be_another_text(tmp_path):
    names = {name: str(tmp_path / name) for name in ("trained", "held_out")}
    for name in names:
        (tmp_path / name).write_text(f"The {name} text. " * 9)
    section = NeedleConfig(
        needle="uuid", haystack=names["trained"], eval_haystack=names["held_out"]
    )
    read = []

    def scorer(examples):
        read.extend(bytes(one["inputs"].tolist()) for one in examples)
        return Oracle(1000)(examples)

    config = RunConfig(data=DataConfig(source="task", seq_len=300, task=section))
    settings = NeedleSettings(lengths=(300,), depths=(0.5,), n_examples=2)
    (line,) = needle(scorer, config, settings)
    assert line["accuracy"] == 1
    assert all(b"The held_out text." in text for text in read)
    assert not any(b"trained" in text for text in read)
