from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.hostile import accept_or_refuse, damaged, few, numbers
from titans_eqx.config import ConfigError, RunConfig, load_config, to_toml
from titans_eqx.config.keys import KEYS, SECTIONS

DEEP = "a." * 5000
WHOLE = to_toml(RunConfig()).encode()
names = st.sampled_from([*KEYS, *SECTIONS]) | st.text(max_size=12)
# Fragments of TOML, in any order.
fragments = st.sampled_from(
    ["[", "]", "[[", "]]", "{", "}", "=", ".", ",", "\n", '"', '"""', "'", "#", "\\u"]
    + ["inf", "nan", "0x", "1e", "1_0", "true", "1979-05-27T07:32:00Z", "\r", "\0"]
)
values = st.one_of(
    numbers.map(str),
    st.text(max_size=20),
    st.lists(fragments | names, max_size=8).map("".join),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("config") / "my.toml"


def read(file, content, *overrides):
    file.write_bytes(content)
    config: Any = accept_or_refuse(load_config, file, overrides, refusal=ConfigError)
    if config is not None:
        file.write_bytes(to_toml(config).encode())
        assert load_config(file) == config


@few
@given(content=st.binary() | damaged(WHOLE))
@example(content=f"[model]\nd_model.{DEEP}a = 1".encode())
@example(content=f"model.d_model = {'{a=' * 300}1{'}' * 300}".encode())
@example(content=f"[model]\nd_model = 0x{'f' * 5000}".encode())
@example(content=f"[model]\nrope_base = 1{'0' * 400}".encode())
def test_any_file_is_a_config_or_refused_in_one_line(file, content):
    read(file, content)


@few
@given(lines=st.lists(st.tuples(names, values) | fragments, max_size=6))
def test_any_lines_are_a_config_or_refused_in_one_line(file, lines):
    text = "\n".join(x if isinstance(x, str) else f"{x[0]} = {x[1]}" for x in lines)
    read(file, text.encode("utf-8", "surrogatepass"))


@few
@given(override=st.tuples(names, st.sampled_from(["=", ""]), values).map("".join))
@example(override=f"model.d_model={'[' * 50000}")
@example(override=f"model.d_model=0x{'f' * 5000}")
@example(override="data.path=\ud800")
def test_any_override_is_taken_or_refused_in_one_line(file, override):
    read(file, b"", override)
