import pytest

VALUES = {
    'model.pattern=["transformer", "mac"]': (
        "model",
        "pattern",
        ("transformer", "mac"),
    ),
    "model.d_model=256": ("model", "d_model", 256),
    " model.d_model = 256 ": ("model", "d_model", 256),
    "model.pattern=mal": ("model", "pattern", "mal"),
    'model.pattern="mal"': ("model", "pattern", "mal"),
    "model.tied_embeddings=false": ("model", "tied_embeddings", False),
    "optimizer.learning_rate=1e-3": ("optimizer", "learning_rate", 1e-3),
    "optimizer.learning_rate=1": ("optimizer", "learning_rate", 1.0),
    "data.path=some/file.txt": ("data", "path", "some/file.txt"),
    'data.path=["a", "b"]': ("data", "path", ("a", "b")),
    "data.path=a=b": ("data", "path", "a=b"),
    "data.path=2020-01-01": ("data", "path", "2020-01-01"),
    "data.path=1\nx=2": ("data", "path", "1\nx=2"),
}


@pytest.mark.parametrize("override", VALUES)
def test_override_wins_over_the_file_and_is_typed(load, override):
    section, key, value = VALUES[override]
    other = load("[model]\nd_model = 64")
    config = load("[model]\nd_model = 64", override)
    found = getattr(getattr(config, section), key)
    assert found == value
    assert type(found) is type(value)
    changed = getattr(other, section).model_copy(update={key: value})
    assert config == other.model_copy(update={section: changed})


def test_overrides_reach_nested_keys_and_the_last_wins(load):
    config = load("", "model.memory.depth=3", "model.memory.depth=1")
    assert config.model.memory.depth == 1


def test_overrides_choose_a_task_and_its_keys(load):
    task = load("", "data.task.n_pairs=8", "data.source=task").data.task
    assert (task.name, task.n_pairs) == ("mqar", 8)
    overrides = ["data.task.depth=1", "data.task.name=needle", "data.source=task"]
    task = load("", *overrides).data.task
    assert (task.name, task.depth, task.n_digits) == ("needle", 1.0, 7)


WRONG_OVERRIDES = {
    "no value": ("model.d_model", "--set model.d_model: write it as key=value"),
    "no key": ("=3", "--set =3: write it as key=value"),
    "section": ("model=3", "--set model=3: model is a section; set its keys one by"),
    "unknown key": (
        "model.d_modle=3",
        "--set model.d_modle=3: model.d_modle is not a key; did you mean model.d_model",
    ),
    "bare key": ("steps=3", "--set steps=3: steps is not a key; did you mean train.s"),
    "below a key": ("train.steps.x=3", "x is not a key; did you mean train.steps?"),
    "value": ("model.d_model=0", "--set model.d_model=0: model.d_model must be >= 1"),
    "text": ("model.d_model=abc", 'model.d_model must be a whole number, got "abc"'),
    "broken list": ("data.path=[a, b]", "--set data.path=[a, b]: not valid TOML: "),
    "key of no task": (
        "data.task.nosie=1",
        "data.task.nosie is not a key; did you mean data.task.noise?",
    ),
    "task without source": (
        "data.task.n_pairs=8",
        "my.toml with --set data.task.n_pairs=8: data.task has no effect with",
    ),
    "line break": ("data.seed=1\n2", "--set data.seed=1 2: data.seed must be a whole"),
    "key without effect": (
        "optimizer.spike_window=10",
        "optimizer.spike_window has no effect with optimizer.spike_sigmas = 0.0; leave",
    ),
    "combination": (
        "model.memory.n_heads=5",
        "my.toml with --set model.memory.n_heads=5: model.d_model must be a multiple",
    ),
}


@pytest.mark.parametrize(
    ("override", "said"), WRONG_OVERRIDES.values(), ids=WRONG_OVERRIDES
)
def test_wrong_override_is_one_line_that_names_it(refusal, override, said):
    assert said in refusal("", override)


def test_override_of_another_tasks_key_is_named(refusal):
    message = refusal("", "data.source=task", "data.task.noise=0.5")
    assert message.startswith(
        '--set data.task.noise=0.5: data.task.noise is not a key of data.task.name = "'
    )


def test_override_does_not_hide_an_error_of_the_file(refusal):
    message = refusal("model = 3", "model.d_model=256")
    assert message.endswith("my.toml: model is a section and holds keys, got 3")
