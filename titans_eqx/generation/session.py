"""Sessions: the state of a stream in a file, to be taken up another day.

A session file is a zip of plain NumPy arrays (never pickled): `header`, JSON text with
the format, the model's fingerprint, the shape and type of each array and a SHA-256 of
the data; and `0`, `1`, ... the arrays of the state. Sizes are checked against the model
before any data are read, so neither a damaged nor a hostile file can do more than be
refused.
"""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from titans_eqx.errors import UserError
from titans_eqx.models import ModelState, TitansLM
from titans_eqx.checkpoint.durable import write_durably
from titans_eqx.checkpoint.leaf_table import first_difference, leaf_table

FORMAT: Final = 2
HEADER: Final = "header"
MAX_HEADER_BYTES: Final = 16 * 2**20
ARRAY_OVERHEAD: Final = 4096  # bytes that the NumPy format may add to an array's data


class SessionError(UserError):
    """A session file cannot be written or used; the message is one line."""


def fingerprint(model: TitansLM) -> str:
    """A hash that two models share only if they compute the same.

    Args:
        model: The model; its structure, options and weights all count.

    Returns:
        Hexadecimal SHA-256.
    """
    arrays, statics = eqx.partition(model, eqx.is_array)
    digest = hashlib.sha256(repr(jax.tree.structure(statics)).encode())
    digest.update(json.dumps(leaf_table(arrays), sort_keys=True).encode())
    for leaf in jax.tree.leaves(arrays):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def save_session(path: str | Path, model: TitansLM, state: ModelState) -> None:
    """Write the state of a stream to a file; an older file is replaced at once or not.

    Args:
        path: The file.
        model: The model that reads the stream.
        state: Where the stream stands.

    Raises:
        SessionError: If the file cannot be written, or the state is not this model's.
    """
    path = Path(path)
    table = leaf_table(state)
    difference = first_difference(table, leaf_table(_state_template(model)))
    if difference is not None:
        raise SessionError(f"the state does not belong to the model: {difference}")
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    header = {
        "format": FORMAT,
        "model": fingerprint(model),
        "leaves": table,
        "sha256": _digest(leaves),
    }
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    buffer = io.BytesIO()
    named = {str(i): _storable(leaf) for i, leaf in enumerate(leaves)}
    np.savez(buffer, allow_pickle=False, **{HEADER: text}, **named)
    try:
        write_durably(path, buffer.getvalue())
    except OSError as error:
        raise SessionError(
            f"cannot write the session {path}: {error.strerror or error}."
        ) from error


def load_session(path: str | Path, model: TitansLM) -> ModelState:
    """Read the state of a stream from a file.

    Args:
        path: A file that `save_session` wrote.
        model: The model that wrote it.

    Returns:
        The state; going on from it is going on with the saved stream.

    Raises:
        SessionError: If there is no such file, it is damaged or no session, or it was
            saved with another model.
    """
    path = Path(path)
    template = _state_template(model)
    try:
        with zipfile.ZipFile(path) as archive:
            header = _read_header(archive)
            _check_header(path, header, model, template)
            leaves = [
                _read_leaf(archive, str(i), leaf)
                for i, leaf in enumerate(jax.tree.leaves(template))
            ]
        if _digest(leaves) != header["sha256"]:
            raise SessionError(
                f"{path} is damaged: its data do not match their checksum."
            )
    except SessionError:
        raise
    except FileNotFoundError as error:
        raise SessionError(
            f"there is no session {path}. Make one with save_session, or with "
            "scripts/generate.py --session."
        ) from error
    except OSError as error:
        raise SessionError(
            f"cannot read the session {path}: {error.strerror or error}."
        ) from error
    # Whatever else a damaged or hostile file makes its readers raise; also MemoryError,
    # for an array that claims to be huge.
    except Exception as error:
        raise SessionError(f"{path} is damaged or no session: {error!r}") from error
    arrays = [jnp.asarray(leaf) for leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(template), arrays)


def _state_template(model: TitansLM) -> PyTree[jax.ShapeDtypeStruct]:
    return eqx.filter_eval_shape(lambda model: model.init_state(), model)


def _digest(leaves: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for leaf in leaves:
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _storable(leaf: np.ndarray) -> np.ndarray:
    """Bytes: NumPy's format does not know every type of jax, such as bfloat16."""
    return np.frombuffer(np.ascontiguousarray(leaf).tobytes(), np.uint8)


def _read_header(archive: zipfile.ZipFile) -> dict[str, Any]:
    content = _read_bytes(archive, HEADER, MAX_HEADER_BYTES)
    header = json.loads(content)
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    return header


def _check_header(
    path: Path, header: dict[str, Any], model: TitansLM, template: PyTree
) -> None:
    if header.get("format") != FORMAT:
        raise SessionError(
            f"{path} has session format {header.get('format')!r}, this version of "
            f"titans_eqx reads format {FORMAT}."
        )
    difference = first_difference(header["leaves"], leaf_table(template))
    if difference is not None or header.get("model") != fingerprint(model):
        detail = f" ({difference})" if difference is not None else ""
        raise SessionError(
            f"the session {path} was saved with another model{detail}. Load the model "
            "that wrote it."
        )


def _read_leaf(
    archive: zipfile.ZipFile, name: str, leaf: jax.ShapeDtypeStruct
) -> np.ndarray:
    size = leaf.size * leaf.dtype.itemsize
    content = _read_bytes(archive, name, size)
    if len(content) != size:
        raise ValueError(f"array {name} has {len(content)} bytes, expected {size}")
    return np.frombuffer(content, leaf.dtype).reshape(leaf.shape)


def _read_bytes(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """One array of bytes; at most `limit` of them are ever unpacked."""
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > limit + ARRAY_OVERHEAD:
        raise ValueError(f"array {name} is too large ({info.file_size} bytes)")
    with archive.open(info) as file:
        content = io.BytesIO(file.read(limit + ARRAY_OVERHEAD))
    array = np.load(content, allow_pickle=False)
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(f"array {name} is not a row of bytes")
    return array.tobytes()
