import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titans_eqx.config import (
    AnyTask,
    DataConfig,
    OptimizerConfig,
    RunConfig,
    load_config,
    to_toml,
)
from titans_eqx.config.keys import KEYS

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.toml")), ids=lambda p: p.stem)
def test_every_shipped_config_loads_and_reads_back(load, path):
    config = load_config(path)
    assert load(to_toml(config)) == config


def shown_keys(text):
    section, found = "", set()
    for line in text.splitlines():
        if heading := re.fullmatch(r"\[(.*)\]", line):
            section = heading[1]
        elif key := re.match(r"(?:# )?(\w+) ", line):
            found.add(f"{section}.{key[1]}")
    return found


def test_resolved_texts_show_every_key_and_read_back(load):
    assert load(to_toml(RunConfig())) == RunConfig()
    found = set()
    for kind in get_args(AnyTask):
        config = RunConfig(data=DataConfig(source="task", task=kind()))
        assert load(to_toml(config)) == config
        found |= shown_keys(to_toml(config))
    assert found == set(KEYS)


@given(
    path=st.lists(st.text(min_size=1), min_size=1),
    rate=st.floats(min_value=0, exclude_min=True, max_value=1e30),
    seed=st.integers(min_value=0, max_value=2**32 - 1),
)
def test_any_text_and_number_reads_back(tmp_path_factory, path, rate, seed):
    config = RunConfig(
        data=DataConfig(path=tuple(path), eval_path=path[0], seed=seed),
        optimizer=OptimizerConfig(learning_rate=rate),
    )
    file = tmp_path_factory.getbasetemp() / "resolved.toml"
    file.write_bytes(to_toml(config).encode())
    assert load_config(file) == config
