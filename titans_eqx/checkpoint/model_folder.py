"""Which folders hold a model: those of runs, and those that one was exported to."""

import os
from pathlib import Path
from typing import Final

from titans_eqx.checkpoint.errors import CheckpointError

CHECKPOINTS_FOLDER: Final = "checkpoints"  # of a run
WEIGHTS: Final = "model.safetensors"  # of an exported model


def is_exported(folder: str | Path) -> bool:
    """Whether a folder is one that a model was exported to."""
    return os.path.exists(os.path.join(folder, WEIGHTS))  # False for any odd name


def require_model(folder: str | Path) -> None:
    """Find out, before jax is loaded, whether there is something to load.

    Raises:
        CheckpointError: If the folder has no model.
    """
    if not is_exported(folder):
        find_checkpoints(folder)


def find_checkpoints(run_dir: str | Path) -> Path:
    """The folder of a run's checkpoints.

    Raises:
        CheckpointError: If the run has none.
    """
    folder = Path(run_dir) / CHECKPOINTS_FOLDER
    if not folder.is_dir():
        raise CheckpointError(
            f"{run_dir} is no run folder: it has no {CHECKPOINTS_FOLDER}, and no "
            f"{WEIGHTS} either. Train a model with titans-train, or name another "
            "folder."
        )
    return folder
