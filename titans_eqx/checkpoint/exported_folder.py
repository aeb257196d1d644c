"""Exported folders: a trained model for other programs and other machines.

`model.safetensors` holds every array, frozen memories included, named by its path in
the model, such as `backbone.stacks.0.pattern.1.mixer.memory.heads.initial_weights.0`;
what a pattern repeats over the layers is stacked along the first axis. `config.toml` is
that of the run, and `tokenizer.json` is there unless the tokens are bytes.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from pydantic import BaseModel, ConfigDict, ValidationError

from titans_eqx.checkpoint.errors import MAX_REASON, CheckpointError
from titans_eqx.checkpoint.leaf_table import (
    first_difference,
    leaf_checksums,
    leaf_table,
    named_leaves,
)
from titans_eqx.checkpoint.model_folder import WEIGHTS
from titans_eqx.config import RunConfig, load_config, to_toml
from titans_eqx.data.tokenizer import TOKENIZER
from titans_eqx.errors import UserError
from titans_eqx.files import open_regular, write_durably

CONFIG: Final = "config.toml"
FORMAT: Final = "1"


class _Header(BaseModel):
    """The metadata of `model.safetensors`, which are texts."""

    model_config = ConfigDict(frozen=True)

    titans_eqx_format: str
    titans_eqx: str  # the version that wrote it
    step: int
    tokenizer: str  # its fingerprint
    sha256: str  # of the arrays: see `_digest`
    is_average: bool = False  # older folders do not say


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an exported folder holds beside the arrays."""

    folder: Path
    config: RunConfig  # with the tokenizer of the folder
    tokenizer_fingerprint: str
    step: int  # training steps done
    sha256: str  # of the arrays
    is_average: bool  # whether the weights are an average over steps

    def read_arrays(self, template: PyTree[jax.ShapeDtypeStruct]) -> PyTree:
        """The arrays of the model, on the first device.

        Args:
            template: Structure, shapes and dtypes to expect.

        Raises:
            CheckpointError: If they are damaged, or not those of the template.
        """
        path = self.folder / WEIGHTS
        with _opened(path) as file:
            stored = _checked(
                path, lambda: {k: file.get_tensor(k) for k in file.keys()}
            )
        difference = first_difference(leaf_table(stored), leaf_table(template))
        if difference is not None:
            raise CheckpointError(f"{path} does not fit {CONFIG}: {difference}.")
        if _digest(stored) != self.sha256:
            raise CheckpointError(
                f"{path} is damaged: its arrays are not those that were exported "
                "(SHA-256). Export the run again."
            )
        arrays = [jnp.asarray(stored[name]) for name, _ in named_leaves(template)]
        return jax.tree.unflatten(jax.tree.structure(template), arrays)


def write_exported(
    folder: Path,
    arrays: PyTree,
    config: RunConfig,
    *,
    step: int,
    is_average: bool,
    tokenizer_file: bytes | None,
    tokenizer_fingerprint: str,
) -> None:
    """Write a folder that must not be there yet, or be empty; the weights last.

    Raises:
        UserError: If the folder has something in it or cannot be written, or the
            package safetensors is missing.
    """
    _require_safetensors()
    from safetensors.numpy import save

    stored = {name: np.asarray(leaf) for name, leaf in named_leaves(arrays)}
    header = {
        "format": "titans_eqx",
        "titans_eqx_format": FORMAT,
        "titans_eqx": version("titans_eqx"),
        "step": str(step),
        "is_average": str(is_average),
        "tokenizer": tokenizer_fingerprint,
        "sha256": _digest(stored),
    }
    files = {CONFIG: to_toml(config).encode()}
    if tokenizer_file is not None:
        files[TOKENIZER] = tokenizer_file
    files[WEIGHTS] = save(stored, header)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; name a new folder with --out.")
        _write_all(folder, files)
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror or error}. Choose another with "
            "--out."
        ) from error


def open_exported(folder: Path) -> Exported:
    """Read what an exported folder says, and no arrays.

    Raises:
        CheckpointError: If it is damaged, or of another format.
        ConfigError: If its config cannot be used.
        UserError: If the package safetensors is missing.
    """
    path = folder / WEIGHTS
    with _opened(path) as file:
        content = _checked(path, file.metadata) or {}
    if content.get("titans_eqx_format") != FORMAT:
        raise CheckpointError(
            f"{path} was not exported by titans_eqx, or in another format than "
            f"{FORMAT}, the one that this version reads."
        )
    try:
        header = _Header.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CheckpointError(
            f"the header of {path} has been changed: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}."
        ) from error
    config = load_config(folder / CONFIG)
    tokenizer = "bytes"
    if (folder / TOKENIZER).exists():
        tokenizer = str(folder / TOKENIZER)
    data = config.data.model_copy(update={"tokenizer": tokenizer})
    return Exported(
        folder=folder,
        config=config.model_copy(update={"data": data}),
        tokenizer_fingerprint=header.tokenizer,
        step=header.step,
        is_average=header.is_average,
        sha256=header.sha256,
    )


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files in their order, or leave none: then the folder can be used again."""
    try:
        for name, content in files.items():
            write_durably(folder / name, content)
    except BaseException:
        for name in files:
            with contextlib.suppress(OSError):
                (folder / name).unlink()
        raise


def _require_safetensors() -> None:
    try:
        import safetensors  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{WEIGHTS} needs the package safetensors: pip install 'titans_eqx[hf]'"
        ) from error


def _opened(path: Path) -> Any:
    """A `safetensors.safe_open`, to be used as a context."""
    _require_safetensors()
    from safetensors import safe_open

    def open_file() -> Any:
        open_regular(path).close()  # a pipe would be waited for
        return safe_open(path, framework="np")

    return _checked(path, open_file)


def _checked(path: Path, read: Any) -> Any:
    """What a reader returns; whatever it raises becomes one line."""
    try:
        return read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"cannot read {path}: {reason[:MAX_REASON]}.") from error
    # The library has one exception of its own, and raises others for types of arrays
    # that NumPy does not have.
    except Exception as error:
        reason = str(error)[:MAX_REASON].rstrip(".")
        raise CheckpointError(f"{path} is damaged: {reason}.") from error


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the checksums of all arrays by name."""
    content = json.dumps(leaf_checksums(dict(arrays)), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
