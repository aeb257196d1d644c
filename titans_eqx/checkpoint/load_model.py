"""Taking a trained model out of a run folder; needs neither optimizer nor texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import equinox as eqx
import jax
import jax.random as jr

from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.errors import CheckpointError, NoCheckpointError
from titans_eqx.checkpoint.metadata import saved_config
from titans_eqx.checkpoint.run_folder import find_checkpoints
from titans_eqx.config import RunConfig
from titans_eqx.data import Tokenizer, load_tokenizer
from titans_eqx.models import TitansLM, build_model

BYTE_TASKS: Final = ("needle", "who_is_where")


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A trained model with the config of its run."""

    model: TitansLM
    config: RunConfig
    tokenizer: Tokenizer
    step: int  # training steps done
    refused: tuple[str, ...]  # one line for each newer step that was damaged

    @property
    def reads_text(self) -> bool:
        """Whether the tokens of the model stand for text."""
        data = self.config.data
        return data.source != "task" or data.task.name in BYTE_TASKS

    @property
    def reads_bytes(self) -> bool:
        """Whether the tokens of the model are bytes."""
        return self.reads_text and self.config.data.tokenizer == "bytes"


def load_model(
    run_dir: str | Path, *, step: int | None = None, require_text: bool = False
) -> LoadedModel:
    """Load a model of a run, which may still be training.

    Args:
        run_dir: The folder of the run.
        step: Of which checkpoint; None for the latest that is undamaged.
        require_text: Refuse a model whose tokens do not stand for text.

    Returns:
        The model, on the first device.

    Raises:
        NoCheckpointError: If the run has saved nothing, or all of it, or the step, is
            damaged.
        CheckpointError: If this is no run folder, the step is not there, or the model
            is refused.
        DataError: If the tokenizer of the run cannot be loaded.
    """
    folder = find_checkpoints(run_dir)
    unsaved = NoCheckpointError(f"the run {run_dir} has not saved a checkpoint yet.")
    with Checkpoints(folder, read_only=True) as checkpoints:
        if checkpoints.is_empty():
            raise unsaved
        config = saved_config(checkpoints.read_metadata(step)[1])
        template, static = eqx.partition(
            eqx.filter_eval_shape(build_model, config.model, key=jr.key(0)),
            lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct),
        )
        if step is None:
            restored = checkpoints.restore_latest({"model": template})
        else:
            restored = checkpoints.restore(step, {"model": template})
    if restored is None:
        raise unsaved
    # Of the step that was read, which need not be the one whose metadata came first.
    restored_config = saved_config(restored.metadata)
    if restored_config.model != config.model:
        raise CheckpointError(
            f"the steps of {run_dir} are of different models; name one with --step."
        )
    loaded = LoadedModel(
        model=eqx.combine(restored.items["model"], static),
        config=restored_config,
        tokenizer=load_tokenizer(restored_config.data.tokenizer),
        step=restored.step,
        refused=restored.refused,
    )
    if require_text and not loaded.reads_text:
        raise CheckpointError(
            f"the model of {run_dir} was trained on data.task.name = "
            f'"{config.data.task.name}", whose tokens stand for no text. Use '
            "titans-evaluate, or a run that was trained on text."
        )
    return loaded


def warn_of_damage(loaded: LoadedModel) -> None:
    """Say on standard error which newer steps of the run could not be used."""
    for line in loaded.refused:
        click.echo(f"warning: {line}; using step {loaded.step}", err=True)
