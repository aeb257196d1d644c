"""Files of arrays: a zip of their raw bytes and of a header that says what they are.

The member `header.json` holds what the writer wants to say, the shape and type of each
array, and a SHA-256 of the member `data`, which holds the arrays in the order of the
tree. Nothing in such a file is ever run, and sizes are checked before anything is
unpacked, so neither a damaged nor a hostile file can do more than be refused.
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from titans_eqx.checkpoint.errors import MAX_REASON
from titans_eqx.checkpoint.leaf_table import first_difference, leaf_table
from titans_eqx.errors import UserError
from titans_eqx.files import open_regular, write_durably

HEADER: Final = "header.json"
DATA: Final = "data"
OLD_HEADER: Final = "header.npy"  # of titans_eqx 0.1
MAX_HEADER_BYTES: Final = 16 * 2**20
MAX_DIRECTORY_BYTES: Final = 2**16


class ArrayFileError(UserError):
    """A file of arrays cannot be written or used; the message is one line."""


def write_array_file(path: Path, tree: PyTree, header: Mapping[str, Any]) -> None:
    """Write the arrays of a tree; an older file is replaced at once or not at all.

    Args:
        path: The file.
        tree: Arrays.
        header: What JSON can hold; `leaves` and `sha256` are added.

    Raises:
        ArrayFileError: If the file cannot be written.
    """
    # Raw bytes: NumPy's format does not know every type of jax, such as bfloat16.
    data = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))
    full = {**header, "leaves": leaf_table(tree), "sha256": _sha256(data)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(HEADER, json.dumps(full))
        archive.writestr(DATA, data)
    try:
        write_durably(path, buffer.getvalue())
    except OSError as error:
        raise ArrayFileError(
            f"cannot write {path}: {error.strerror or error}."
        ) from error


def read_header(path: Path, template: PyTree) -> dict[str, Any]:
    """Read the header of a file of arrays, and no arrays.

    Args:
        path: The file.
        template: As for `read_array_file`; only the size of its arrays matters.

    Raises:
        FileNotFoundError: If there is no such file.
        ArrayFileError: If it cannot be read, or is no file of arrays.
    """
    with _opened(path, _n_bytes(template)) as archive:
        return _header(path, archive)


def read_array_file(path: Path, template: PyTree) -> PyTree:
    """Read the arrays of a file.

    Args:
        path: A file that `write_array_file` wrote.
        template: Tree of arrays or `jax.ShapeDtypeStruct` with the structure, shapes
            and dtypes to expect.

    Raises:
        FileNotFoundError: If there is no such file.
        ArrayFileError: If it cannot be read, is damaged, or does not fit the template.
    """
    leaves, structure = jax.tree.flatten(template)
    with _opened(path, _n_bytes(template)) as archive:
        header = _header(path, archive)
        difference = first_difference(header["leaves"], leaf_table(template))
        if difference is not None:
            raise ArrayFileError(f"the arrays of {path} do not fit: {difference}.")
        sizes = [leaf.size * leaf.dtype.itemsize for leaf in leaves]
        data = _read(archive, DATA, sum(sizes))
        if len(data) != sum(sizes):
            raise ValueError(f"{DATA} has {len(data)} bytes, not {sum(sizes)}")
        if _sha256(data) != header["sha256"]:
            raise ValueError("its data do not match their checksum")
    ends = itertools.accumulate(sizes)
    arrays = [
        np.frombuffer(data[end - size : end], leaf.dtype).reshape(leaf.shape)
        for leaf, size, end in zip(leaves, sizes, ends, strict=True)
    ]
    return jax.tree.unflatten(structure, [jnp.asarray(array) for array in arrays])


@contextlib.contextmanager
def _opened(path: Path, data_bytes: int) -> Iterator[zipfile.ZipFile]:
    limit = data_bytes + MAX_HEADER_BYTES + MAX_DIRECTORY_BYTES
    try:
        with open_regular(path) as file:
            # Before opening the archive, which reads its whole directory.
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise ArrayFileError(
                    f"{path} has {size:,} bytes, at most {limit:,} belong to it."
                )
            with zipfile.ZipFile(file) as archive:
                yield archive
    except (ArrayFileError, FileNotFoundError):
        raise
    except OSError as error:
        raise ArrayFileError(
            f"cannot read {path}: {error.strerror or error}."
        ) from error
    # Whatever else a damaged or hostile file makes its readers raise; also MemoryError,
    # for an array that claims to be huge.
    except Exception as error:
        raise ArrayFileError(
            f"{path} is damaged or of another kind: {repr(error)[:MAX_REASON]}."
        ) from error


def _header(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    if OLD_HEADER in archive.namelist():
        raise ArrayFileError(
            f"{path} was written by titans_eqx 0.1, whose files this version does not "
            "read. Use that version, or make the file anew."
        )
    header = json.loads(_read(archive, HEADER, MAX_HEADER_BYTES))
    if not isinstance(header, dict) or {"leaves", "sha256"} - header.keys():
        raise ValueError("its header is incomplete")
    return header


def _read(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, and none is written so")
    if info.file_size > limit:
        raise ValueError(f"{name} has {info.file_size} bytes, at most {limit} belong")
    with archive.open(info) as file:
        return file.read(limit)


def _n_bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
