import json
from importlib.metadata import version

import pytest

from tests.refusal import assert_refused
from titans_eqx.checkpoint.metadata import check_resumable, metadata, saved_config
from titans_eqx.config import (
    DataConfig,
    ModelConfig,
    MqarConfig,
    RunConfig,
    TrainConfig,
)

CONFIG = RunConfig(model=ModelConfig(d_model=16))
TEXTS = {"tokenizer": "bytes", "train": "a", "eval": "b"}


def saved(**changes):
    """Metadata as it comes back from a checkpoint."""
    return json.loads(json.dumps(metadata(CONFIG, TEXTS) | changes))


def test_the_same_run_may_go_on_and_gets_its_config_back():
    assert check_resumable(CONFIG, TEXTS, saved()) == []
    assert saved_config(saved()) == CONFIG
    assert saved()["versions"]["titans_eqx"] == version("titans_eqx")


def test_keys_that_may_change_are_listed():
    train = CONFIG.train.model_copy(update={"steps": 2000})
    longer = CONFIG.model_copy(update={"train": train})
    changes = check_resumable(longer, TEXTS, saved())
    assert changes == ["train.steps was 1000, is 2000"]


def test_another_model_or_text_is_refused():
    wider = CONFIG.model_copy(update={"model": ModelConfig(d_model=32)})
    message = "of another model: model.d_model was 16, is 32"
    assert_refused(check_resumable, wider, TEXTS, saved(), message=message)
    texts = TEXTS | {"train": "c"}
    message = (
        "the training text is not the one the checkpoint in the run folder was trained "
        "with, and no key that names it has changed: a file has. Restore it, or train"
    )
    assert_refused(check_resumable, CONFIG, texts, saved(), message=message)


def on(data, fingerprints, **train):
    return RunConfig(
        model=CONFIG.model, data=data, train=TrainConfig(**train)
    ), fingerprints


TASK = DataConfig(source="task", task=MqarConfig(n_pairs=8))
CONTENTS = {
    "eval_fraction": (
        on(DataConfig(), TEXTS),
        on(DataConfig(eval_fraction=0.1, seed=1), TEXTS | {"train": "c", "eval": "d"}),
        "the training text is not the one the checkpoint in the run folder was trained "
        "with: data.eval_fraction was 0.05, is 0.1. Change it back, or train anew",
    ),
    "tokenizer": (
        on(DataConfig(), TEXTS),
        on(DataConfig(tokenizer="t.json"), TEXTS | {"tokenizer": "c", "train": "c"}),
        "the tokenizer is not the one the checkpoint in the run folder was trained "
        "with: data.tokenizer was bytes, is t.json. Change it back, or train anew",
    ),
    "task": (
        on(TASK, {"task": "8"}),
        on(TASK.model_copy(update={"task": MqarConfig(n_pairs=16)}), {"task": "16"}),
        "the task is not the one the checkpoint in the run folder was trained with: "
        "data.task.n_pairs was 8, is 16. Change it back, or train anew",
    ),
}


@pytest.mark.parametrize(("before", "now", "message"), CONTENTS.values(), ids=CONTENTS)
def test_keys_that_name_another_text_or_task_are_in_the_refusal(before, now, message):
    assert_refused(check_resumable, *now, metadata(*before), message=message)


def test_a_task_saved_before_its_texts_had_hashes_may_go_on():
    config, described = on(TASK, {"task": "Needle(depth=1)"})
    now = {"task": "Needle(depth=1) 0f 1e"}
    assert check_resumable(config, now, metadata(config, described)) == []
    hashed, other = metadata(config, now), {"task": "Needle(depth=1) 0f 2d"}
    message = "no key that names it has changed: a file has"
    assert_refused(check_resumable, config, other, hashed, message=message)


def test_streams_keep_the_length_of_their_windows():
    before = on(DataConfig(lengths=(128,)), TEXTS, carry_state=True)
    now = on(DataConfig(lengths=(64,)), TEXTS, carry_state=True)
    message = "cut into other streams: data.lengths was [128], is [64]. Change it back"
    assert_refused(check_resumable, *now, metadata(*before), message=message)


OTHERS = {
    "format 1": (
        {"format": 1, "versions": {"jax": "0.9"}},
        "titans_eqx 0.1 (format 1)",
    ),
    "format 2": (
        {"format": 2, "versions": {"jax": "0.9"}},
        "titans_eqx 0.1 (format 2)",
    ),
    "no format": ({"format": None, "versions": {}}, "titans_eqx 0.1 (format None)"),
    "format 3": (
        {"format": 3, "versions": {"titans_eqx": "0.2"}},
        "titans_eqx 0.2 (format 3)",
    ),
    "later": (
        {"format": 99, "versions": {"titans_eqx": "0.9"}},
        "titans_eqx 0.9 (format 99)",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused_by_the_version_that_wrote_them(name):
    changes, message = OTHERS[name]
    line = assert_refused(saved_config, saved(**changes), message=message)
    assert line.endswith("train anew with titans-train --fresh, or in another folder.")
    assert_refused(check_resumable, CONFIG, TEXTS, saved(**changes), message=message)


EDITS = {
    "config is a list": ({"config": []}, "config: Input should be a valid dictionary"),
    "config is null": ({"config": None}, "config: Input should be"),
    "fingerprints are a list": ({"fingerprints": ["a"]}, "fingerprints: Input should"),
    "a fingerprint is a number": ({"fingerprints": {"train": 1}}, "fingerprints.train"),
    "versions are a list": ({"versions": []}, "versions: Input should be"),
    "a version has two lines": (
        {"format": 99, "versions": {"titans_eqx": "0\n1"}},
        "titans_eqx 0 1 (format 99)",
    ),
    "format is a list": ({"format": [4]}, "(format [4])"),
    "wrong types in the config": (
        {"config": {"model": [], "train": {"steps": "many"}}},
        "model is a section and holds keys, got []",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_edited_metadata_are_one_line(name):
    changes, message = EDITS[name]
    assert_refused(saved_config, saved(**changes), message=message)
    assert_refused(check_resumable, CONFIG, TEXTS, saved(**changes), message=message)


@pytest.mark.parametrize("key", ["config", "fingerprints"])
def test_metadata_that_lack_a_key_are_one_line(key):
    lacking = saved()
    del lacking[key]
    assert_refused(saved_config, lacking, message=f"{key}: Field required")


def test_unknown_keys_are_refused_by_the_version_that_wrote_them():
    config = CONFIG.model_dump(mode="json") | {"new_section": {}}
    message = f"Use titans_eqx {version('titans_eqx')}, which wrote it."
    assert_refused(saved_config, saved(config=config), message=message)
