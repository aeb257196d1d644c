"""Taking a trained model out of a run folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import equinox as eqx
import jax.random as jr

from titans_eqx.config import RunConfig
from titans_eqx.data import Tokenizer, load_tokenizer
from titans_eqx.models import TitansLM, build_model
from titans_eqx.checkpoint.checkpoints import CheckpointError, Checkpoints
from titans_eqx.training.optimizer import build_optimizer
from titans_eqx.checkpoint.metadata import saved_config
from titans_eqx.checkpoint.run_folder import CHECKPOINTS_FOLDER
from titans_eqx.training.step import assemble, init_train_state

BYTE_TASKS: Final = ("needle", "who_is_where")


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model with the config of its run."""

    model: TitansLM
    config: RunConfig
    tokenizer: Tokenizer
    step: int  # training steps done

    @property
    def reads_text(self) -> bool:
        """Whether the tokens of the model stand for text."""
        data = self.config.data
        return data.source != "task" or data.task.name in BYTE_TASKS

    @property
    def reads_bytes(self) -> bool:
        """Whether the tokens of the model are bytes."""
        return self.reads_text and self.config.data.tokenizer == "bytes"


def load_trained(run_dir: str | Path) -> TrainedModel:
    """Load the latest model of a run, which may still be training.

    Args:
        run_dir: The folder of the run.

    Returns:
        The model on the first device, ready for use.

    Raises:
        CheckpointError: If the folder holds no usable checkpoint.
        DataError: If the tokenizer of the run cannot be loaded.
    """
    folder = Path(run_dir) / CHECKPOINTS_FOLDER
    if not folder.is_dir():
        raise CheckpointError(
            f"{run_dir} is no run folder: it has no {CHECKPOINTS_FOLDER}. Train a "
            "model with scripts/train.py, or name another folder."
        )
    with Checkpoints(folder, read_only=True) as checkpoints:
        if checkpoints.is_empty():
            raise CheckpointError(f"the run {run_dir} has not saved a checkpoint yet.")
        _, metadata = checkpoints.read_metadata()
        config = saved_config(metadata)
        optimizer = build_optimizer(config.optimizer, config.train.steps)
        template, statics = eqx.filter_eval_shape(
            lambda: init_train_state(
                build_model(config.model, key=jr.key(0)), optimizer
            )
        )
        restored = checkpoints.restore_latest(template)
    if restored is None:
        raise CheckpointError(f"the run {run_dir} has not saved a checkpoint yet.")
    return TrainedModel(
        model=assemble(restored.arrays, statics),
        config=config,
        tokenizer=load_tokenizer(config.data.tokenizer),
        step=restored.step,
    )


def load_reader(run_dir: str | Path) -> TrainedModel:
    """`load_trained` of a model that reads text.

    Args:
        run_dir: The folder of the run.

    Returns:
        The model on the first device, ready for use.

    Raises:
        CheckpointError: If the folder holds no usable checkpoint, or the tokens of its
            model stand for no text.
        DataError: If the tokenizer of the run cannot be loaded.
    """
    trained = load_trained(run_dir)
    if not trained.reads_text:
        raise CheckpointError(
            f"the model of {run_dir} was trained on data.task.name = "
            f'"{trained.config.data.task.name}", whose tokens stand for no text. Use '
            "scripts/evaluate.py, or a run that was trained on text."
        )
    return trained
