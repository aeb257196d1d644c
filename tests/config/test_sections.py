from typing import get_args

import pytest
from pydantic import ValidationError

from titans_eqx.config import (
    AnyTask,
    AttentionConfig,
    DataConfig,
    DistributedConfig,
    MemoryConfig,
    MeshConfig,
    ModelConfig,
    MqarConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from titans_eqx.config.memory import LocalConfig

SECTIONS = {
    "model": ModelConfig,
    "model.memory": MemoryConfig,
    "model.memory.local": LocalConfig,
    "model.attention": AttentionConfig,
    "data": DataConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
    "mesh": MeshConfig,
    "distributed": DistributedConfig,
} | {f"data.task: {kind().name}": kind for kind in get_args(AnyTask)}


@pytest.mark.parametrize("section", [*SECTIONS.values(), RunConfig])
def test_every_section_has_defaults_is_frozen_and_can_be_hashed(section: type):
    config = section()
    assert config == section()
    assert hash(config) == hash(section())
    name = next(iter(section.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, name, getattr(config, name))
    with pytest.raises(TypeError):
        section(1)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_is_described(name: str):
    for key, field in SECTIONS[name].model_fields.items():
        assert field.description, f"{name}.{key}"


@pytest.mark.parametrize("name", SECTIONS)
def test_every_number_is_bounded_on_both_sides(name: str):
    kinds = {int: 10**18, float: 1e300}
    for key, field in SECTIONS[name].model_fields.items():
        for sign in (1, -1) if field.annotation in kinds else ():
            with pytest.raises(ValidationError) as caught:
                SECTIONS[name](**{key: sign * kinds[field.annotation]})
            assert caught.value.errors()[0]["loc"] == (key,)


def test_a_section_built_in_code_is_checked():
    with pytest.raises(ValueError, match="n_heads"):
        MemoryConfig(n_heads=0)
    with pytest.raises(ValueError, match=r"n_pairs must be <= 63 .* got 64"):
        MqarConfig(n_pairs=64)
    with pytest.raises(ValueError, match=r"multiple of model\.memory\.n_heads"):
        ModelConfig(d_model=100, memory=MemoryConfig(n_heads=3))


def test_decay_starts_are_one_number_or_two():
    assert MemoryConfig(decay_start=1e-3).decay_start == 1e-3
    assert MemoryConfig(decay_start=[1e-4, 1e-2]).decay_start == (1e-4, 1e-2)
    for wrong in (0.0, 1.0, [], [1e-4], [1e-4, 2.0], [1e-4] * 3, "slow", [True, 0.1]):
        with pytest.raises(ValueError, match="a number between 0 and 1, or a list"):
            MemoryConfig(decay_start=wrong)
