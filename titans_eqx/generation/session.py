"""Sessions: the state of a stream in a file, to be resumed another day.

A session is a file of arrays (`checkpoint/array_file.py`) whose header names the
session format and a fingerprint of the model that reads the stream.
"""

import functools
import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from titans_eqx.checkpoint.array_file import (
    ArrayFileError,
    read_array_file,
    read_header,
    write_array_file,
)
from titans_eqx.checkpoint.leaf_table import first_difference, leaf_table
from titans_eqx.errors import UserError
from titans_eqx.files import link_target
from titans_eqx.models import ModelState, TitansLM

FORMAT: Final = 4
ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")


class SessionError(UserError):
    """A session file cannot be written or used; the message is one line."""


def fingerprint(model: PyTree) -> str:
    """SHA-256 of a model's structure, options and weights.

    Two models share it only if they compute the same. Functions in them count by their
    names, since their addresses are others in each process.
    """
    arrays, statics = eqx.partition(model, eqx.is_array)
    about = [jax.tree.structure(statics), *map(_named, jax.tree.leaves(statics))]
    text = "".join(ADDRESS.sub("", repr(one)) for one in about)
    digest = hashlib.sha256(text.encode())
    digest.update(json.dumps(leaf_table(arrays), sort_keys=True).encode())
    for leaf in jax.tree.leaves(arrays):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _named(leaf: object) -> object:
    """A leaf that is no array; a function by its name."""
    if not callable(leaf):
        return leaf
    return getattr(leaf, "__module__", ""), getattr(leaf, "__qualname__", repr(leaf))


class Session:
    """The file that keeps the state of a stream, for one model.

    The model is hashed once, so a conversation that is saved at each turn has one.
    """

    def __init__(self, path: str | Path, model: TitansLM) -> None:
        """Name the file; nothing is read or written."""
        self._path = Path(path)
        self._model = model

    @functools.cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self._model)

    @functools.cached_property
    def _template(self) -> PyTree[jax.ShapeDtypeStruct]:
        return _state_template(self._model)

    def exists(self) -> bool:
        """Whether there is such a file."""
        return self._path.exists()

    def save(self, state: ModelState) -> None:
        """Write a state; see `save_session`."""
        difference = first_difference(leaf_table(state), leaf_table(self._template))
        if difference is not None:
            raise SessionError(f"the state does not belong to the model: {difference}.")
        if (name := _first_not_finite(state)) is not None:
            raise SessionError(
                f"the session is not saved: {name} has numbers that are not finite. "
                f"What {self._path} held before is kept."
            )
        header = {
            "format": FORMAT,
            "titans_eqx": version("titans_eqx"),
            "model": self._fingerprint,
        }
        # Or the link itself would be replaced.
        target = link_target(self._path)
        try:
            write_array_file(target, state, header)
        except ArrayFileError as error:
            raise SessionError(f"the session is not saved: {error}") from error

    def load(self) -> ModelState:
        """Read the state; see `load_session`."""
        path = self._path
        try:
            header = read_header(path, self._template)
            if header.get("format") != FORMAT:
                raise SessionError(
                    f"{path} was written by titans_eqx {header.get('titans_eqx')} "
                    f"(session format {header.get('format')!r}); titans_eqx "
                    f"{version('titans_eqx')} reads format {FORMAT}. Use that version, "
                    "or begin a new session."
                )
            if header.get("model") != self._fingerprint:
                raise SessionError(
                    f"the session {path} was saved with another model. Load the model "
                    "that wrote it."
                )
            state = read_array_file(path, self._template)
        except FileNotFoundError as error:
            raise SessionError(
                f"there is no session {path}. Make one with save_session, or with "
                "titans-generate --session."
            ) from error
        except ArrayFileError as error:
            raise SessionError(f"the session cannot be used: {error}") from error
        if (name := _first_not_finite(state)) is not None:
            raise SessionError(
                f"the session {path} cannot be used: {name} has numbers that are not "
                "finite. Begin a new session."
            )
        return state


def save_session(path: str | Path, model: TitansLM, state: ModelState) -> None:
    """Write the state of a stream to a file; an older file is replaced at once or not.

    Of a link it is the file to which the link leads.

    Raises:
        SessionError: If the file cannot be written, the state is not this model's, or
            it has numbers that are not finite.
    """
    Session(path, model).save(state)


def load_session(path: str | Path, model: TitansLM) -> ModelState:
    """Read the state of a stream that `save_session` wrote with the same model.

    Raises:
        SessionError: If there is no such file, it is damaged or no session, it was
            saved with another model or by a version with another format, or it has
            numbers that are not finite.
    """
    return Session(path, model).load()


def _first_not_finite(state: ModelState) -> str | None:
    """The path of the first array with NaN or infinity in it."""
    for path, leaf in jax.tree.leaves_with_path(state):
        if not bool(jnp.all(jnp.isfinite(leaf))):
            return jax.tree_util.keystr(path, simple=True, separator=".")
    return None


def _state_template(model: TitansLM) -> PyTree[jax.ShapeDtypeStruct]:
    return eqx.filter_eval_shape(lambda model: model.init_state(), model)
