"""The SHA-256 manifest of a checkpoint folder.

Orbax does not notice a flipped bit in a stored array: the restore succeeds, with wrong
numbers. So every file of a finished folder is listed with its size and its hash, and
nothing is read back before the list has been checked. A file that is not listed is
damage too: orbax would read it.

The file `manifest.json` is `{"format": 1, "files": {name: {"bytes", "sha256"}}}`, names
relative to the folder, with forward slashes.
"""

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from titans_eqx.checkpoint.errors import DamagedError
from titans_eqx.files import check_name, read_regular, write_durably

MANIFEST_NAME: Final = "manifest.json"
MANIFEST_FORMAT: Final = 1
MAX_MANIFEST_BYTES: Final = 64 * 2**20


def write_manifest(folder: Path) -> None:
    """List every file of a folder to which nothing is written any more."""
    files = {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": _hash_file(folder / name),
        }
        for name in sorted(_file_names(folder))
    }
    manifest = {"format": MANIFEST_FORMAT, "files": files}
    text = json.dumps(manifest, indent=1) + "\n"
    write_durably(folder / MANIFEST_NAME, text.encode())


def check_manifest(folder: Path, subfolders: Collection[str] | None = None) -> None:
    """Compare the files of a folder with its manifest.

    Args:
        folder: The folder that holds the manifest.
        subfolders: Do not look for what is listed in other subfolders than these; None
            checks all. Files that are not listed are looked for in all of them.

    Raises:
        DamagedError: At the first file that is missing, is not listed, or differs in
            size or hash, and if the manifest itself is missing or unreadable.
    """
    manifest = _read_manifest(folder)
    if unlisted := set(_file_names(folder)) - manifest.keys():
        raise DamagedError(f"{min(unlisted)} is not in {MANIFEST_NAME}")
    for name, entry in manifest.items():
        top, _, below = name.partition("/")
        if subfolders is not None and below and top not in subfolders:
            continue
        path = folder / name
        try:
            check_name(path)
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
                raise DamagedError(f"{name} is no regular file")
            if (size := status.st_size) != entry["bytes"]:
                raise DamagedError(
                    f"{name} has {size} bytes, written were {entry['bytes']}"
                )
            if _hash_file(path) != entry["sha256"]:
                raise DamagedError(f"{name} has changed since it was written (SHA-256)")
        except FileNotFoundError:
            raise DamagedError(f"{name} is missing") from None
        except OSError as error:
            raise DamagedError(f"{name} cannot be read: {error.strerror}") from error


def _file_names(folder: Path) -> Iterator[str]:
    """Everything below a folder but folders and the manifest; no link is followed."""
    for parent, subfolders, files in os.walk(folder):
        links = [name for name in subfolders if os.path.islink(Path(parent, name))]
        for name in [*files, *links]:
            relative = Path(parent, name).relative_to(folder).as_posix()
            if relative != MANIFEST_NAME:
                yield relative


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        content = read_regular(folder / MANIFEST_NAME, MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        raise DamagedError(f"{MANIFEST_NAME} is missing") from None
    except OSError as error:
        raise DamagedError(
            f"{MANIFEST_NAME} cannot be read: {error.strerror}"
        ) from error
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError):
        raise DamagedError(f"{MANIFEST_NAME} is not JSON") from None
    if not isinstance(manifest, dict) or manifest.get("format") != MANIFEST_FORMAT:
        raise DamagedError(f"{MANIFEST_NAME} is not of format {MANIFEST_FORMAT}")
    files = manifest.get("files")
    if not isinstance(files, dict) or not files:
        raise DamagedError(f"{MANIFEST_NAME} lists no files")
    for name, entry in files.items():
        if not isinstance(entry, dict) or not {"bytes", "sha256"} <= entry.keys():
            raise DamagedError(f"{MANIFEST_NAME} has no size and hash for {name}")
        # A crafted manifest must not make us open files elsewhere on the machine.
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DamagedError(f"{MANIFEST_NAME} names {name}, outside its folder")
    return files
