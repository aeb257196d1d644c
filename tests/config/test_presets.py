"""Presets: names for values of the keys that a section leaves out."""

import pytest


def test_a_preset_gives_the_keys_that_are_left_out(load):
    config = load(
        '[model.memory]\npreset = "associative"\ndegree = 1',
        "model.memory.decay_start=1e-3",
    )
    spelt = load(
        "[model.memory]",
        *(
            f"model.memory.{one}"
            for one in (
                "rule=delta",
                "depth=1",
                "feature_scale=6.0",
                "residual=false",
                "norm=false",
                "use_momentum=false",
                "target=next",
                "query_start=keys",
                "value_activation=none",
                "value_norm=true",
                "read_norm=false",
                "gate_start=open",
                "initial_output=zero",
                "decay_start=1e-3",
                "max_learning_rate=1.0",
            )
        ),
    )
    assert config == spelt
    assert config.model.memory.preset is None
    assert "preset" not in config.model.memory.model_fields_set


def test_what_is_saved_has_the_values_in_place_of_the_name(load):
    from titans_eqx.config.toml import to_toml

    config = load("", "model.memory.preset=associative")
    text = to_toml(config)
    assert 'preset = "' not in text
    assert 'gate_start = "open"' in text
    assert load(text) == config


def test_an_option_takes_another_preset_than_the_file(load):
    text = '[model.memory]\npreset = "associative"'
    assert load(text, "model.memory.preset=titans") == load("")


@pytest.mark.parametrize("value", ['"recall"', "3", "[]", '["titans"]'])
def test_a_preset_that_does_not_exist_is_refused(refusal, value):
    message = refusal(f"[model.memory]\npreset = {value}")
    assert "model.memory.preset must be one of " in message
    assert '"titans", "associative"' in message
