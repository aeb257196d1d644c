"""Configurations from text, and the messages about wrong ones."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def load(tmp_path: Path) -> Callable:
    """Load a configuration from the text of `my.toml` and overrides."""

    def load_text(text: str | bytes, *overrides: str) -> object:
        # Not at top level: see the conftest above this one.
        from titans_eqx.config import load_config

        path = tmp_path / "my.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(path, overrides)

    return load_text


@pytest.fixture
def refusal(load: Callable) -> Callable[..., str]:
    """The message that refuses a text and overrides, checked to be one line."""

    def refused(text: str | bytes, *overrides: str) -> str:
        from titans_eqx.config import ConfigError

        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return refused
