"""Files on disk for the data tests."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest


@pytest.fixture
def write_files(tmp_path: Path) -> Callable[[Mapping[str, bytes]], Path]:
    """Write files by relative name into one folder and return the folder."""

    def write(contents: Mapping[str, bytes]) -> Path:
        folder = tmp_path / "texts"
        for name, content in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        folder.mkdir(exist_ok=True)
        return folder

    return write
