import os
from pathlib import Path

import pytest

from titans_eqx.config import ConfigError, load_config


def test_missing_file_names_the_nearest(tmp_path: Path):
    (tmp_path / "mac.toml").write_text("")
    with pytest.raises(ConfigError, match=r"mca\.toml: no such file; did .*/mac\.toml"):
        load_config(tmp_path / "mca.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_a_file_that_never_ends_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    for path, reason in (
        (tmp_path / "pipe", "it is a pipe or a device"),
        ("/dev/zero", "it is a pipe or a device"),
        (tmp_path / "huge", "it has more than 1,048,576 bytes, the most"),
        ("a\0b", "this is no file name"),
    ):
        with pytest.raises(ConfigError, match=f"cannot be read: {reason}"):
            load_config(path)
