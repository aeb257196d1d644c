import json
import os
from pathlib import Path

import pytest

from titans_eqx.checkpoint.errors import DamagedError
from titans_eqx.checkpoint.manifest import (
    MANIFEST_NAME,
    check_manifest,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "arrays").mkdir()
    (tmp_path / "arrays" / "weights").write_bytes(bytes(range(256)))
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "weights").write_bytes(bytes(4))
    (tmp_path / "note").write_bytes(b"")
    write_manifest(tmp_path)
    return tmp_path


def flip_bit(folder):
    content = bytearray((folder / "arrays/weights").read_bytes())
    content[100] ^= 1
    (folder / "arrays/weights").write_bytes(content)


def set_manifest(text):
    return lambda folder: (folder / MANIFEST_NAME).write_text(text)


def entry_for(name):
    return json.dumps({"format": 1, "files": {name: {"bytes": 0, "sha256": ""}}})


def replace_by_pipe(folder):
    (folder / "note").unlink()
    os.mkfifo(folder / "note")


def leave_out(name):
    """A manifest that is right, but for one file that it does not list."""

    def damage(folder):
        path = folder / MANIFEST_NAME
        manifest = json.loads(path.read_text())
        del manifest["files"][name]
        path.write_text(json.dumps(manifest))

    return damage


DAMAGE = {
    "bit flip": (flip_bit, "arrays/weights has changed"),
    "truncation": (
        lambda folder: (folder / "arrays/weights").write_bytes(b"ab"),
        "arrays/weights has 2 bytes, written were 256",
    ),
    "missing file": (lambda folder: (folder / "note").unlink(), "note is missing"),
    "not listed": (leave_out("arrays/weights"), "arrays/weights is not in manifest"),
    "pipe": (replace_by_pipe, "note is no regular file"),
    "missing manifest": (
        lambda folder: (folder / MANIFEST_NAME).unlink(),
        "manifest.json is missing",
    ),
    "not JSON": (set_manifest("{"), "manifest.json is not JSON"),
    "too deep": (set_manifest("[" * 100_000), "manifest.json is not JSON"),
    "other format": (set_manifest('{"format": 9}'), "not of format 1"),
    "no files": (set_manifest('{"format": 1, "files": {}}'), "lists no files"),
    "no hash": (set_manifest('{"format": 1, "files": {"a": {}}}'), "no size and hash"),
    "upwards": (set_manifest(entry_for("../a")), "names ../a, outside"),
    "absolute": (set_manifest(entry_for("/etc/passwd")), "outside its folder"),
}


def test_untouched_folder_passes(folder):
    check_manifest(folder)


UNLISTED = {
    "later": Path.touch,
    "arrays/later": Path.touch,
    "new": lambda path: (path.mkdir(), (path / "later").touch()),
    "others/link": lambda path: path.symlink_to(path.parent),
    "arrays/pipe": os.mkfifo,
}


@pytest.mark.parametrize("name", UNLISTED)
def test_what_is_not_listed_is_damage_wherever_it_is(folder, name):
    UNLISTED[name](folder / name)
    with pytest.raises(DamagedError, match=f"{name}.* is not in manifest.json"):
        check_manifest(folder, ["arrays"])


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(folder, name):
    damage, message = DAMAGE[name]
    damage(folder)
    with pytest.raises(DamagedError, match=message):
        check_manifest(folder)


def test_only_the_asked_part_is_checked(folder):
    (folder / "others" / "weights").unlink()
    check_manifest(folder, ["arrays"])
    with pytest.raises(DamagedError, match="others/weights is missing"):
        check_manifest(folder, ["arrays", "others"])
