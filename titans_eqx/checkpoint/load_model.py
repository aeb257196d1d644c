"""Taking a trained model out of a run folder, or out of one that it was exported to.

Neither optimizer nor texts are needed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import equinox as eqx

from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.errors import CheckpointError, NoCheckpointError
from titans_eqx.checkpoint.exported_folder import open_exported, write_exported
from titans_eqx.checkpoint.metadata import saved_config, saved_fingerprints
from titans_eqx.checkpoint.model_folder import find_checkpoints, is_exported
from titans_eqx.config import RunConfig
from titans_eqx.data import ByteTokenizer, Tokenizer
from titans_eqx.data.tokenizer import load_tokenizer, tokenizer_name
from titans_eqx.models import TitansLM
from titans_eqx.models.build import abstract_model

BYTE_TASKS: Final = ("needle", "who_is_where")


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A trained model with the config of its run."""

    model: TitansLM
    config: RunConfig
    tokenizer: Tokenizer
    step: int  # training steps done
    refused: tuple[str, ...]  # one line for each newer step that was damaged
    is_average: bool = False  # whether the weights are an average over steps

    @property
    def reads_text(self) -> bool:
        """Whether the tokens of the model stand for text."""
        data = self.config.data
        return data.source != "task" or data.task.name in BYTE_TASKS

    @property
    def reads_bytes(self) -> bool:
        """Whether the tokens of the model are bytes."""
        return (
            self.reads_text and self.tokenizer.fingerprint == ByteTokenizer.fingerprint
        )

    def export(self, folder: str | Path) -> None:
        """Write weights, config and tokenizer to a new folder (extra `hf`).

        `load_model` reads them back bit by bit; see `checkpoint/exported_folder.py`.

        Raises:
            UserError: If the folder has something in it or cannot be written, or the
                package safetensors is missing.
        """
        write_exported(
            Path(folder),
            eqx.filter(self.model, eqx.is_array),
            self.config,
            step=self.step,
            is_average=self.is_average,
            tokenizer_file=self.tokenizer.file_content,
            tokenizer_fingerprint=self.tokenizer.fingerprint,
        )


def load_model(
    run_dir: str | Path,
    *,
    step: int | None = None,
    require_text: bool = False,
    average: bool = True,
) -> LoadedModel:
    """Load a model of a run, which may still be training, or an exported one.

    Args:
        run_dir: The folder of the run, or one that a model was exported to.
        step: Of which checkpoint; None for the latest that is undamaged.
        require_text: Refuse a model whose tokens do not stand for text.
        average: Take the average of the weights where the run keeps one, which is what
            it evaluates (`train.ema_decay`); otherwise the weights themselves. What was
            exported is one or the other: an average is refused without this.

    Returns:
        The model, on the first device.

    Raises:
        NoCheckpointError: If the run has saved nothing, or all of it, or the step, is
            damaged.
        CheckpointError: If the folder has no model, the step is not there, the files
            are damaged, or the model is refused.
        DataError: If the tokenizer of the run cannot be loaded.
    """
    loaded = (
        _load_exported(Path(run_dir), step, average=average)
        if is_exported(run_dir)
        else _load_run(run_dir, step, average=average)
    )
    if require_text and not loaded.reads_text:
        raise CheckpointError(
            f"the model of {run_dir} was trained on data.task.name = "
            f'"{loaded.config.data.task.name}", whose tokens stand for no text. Use '
            "titans-evaluate, or a run that was trained on text."
        )
    return loaded


def warn_of_damage(loaded: LoadedModel) -> None:
    """Say on standard error which newer steps of the run could not be used."""
    for line in loaded.refused:
        click.echo(f"warning: {line}; using step {loaded.step}", err=True)


def _load_run(run_dir: str | Path, step: int | None, *, average: bool) -> LoadedModel:
    folder = find_checkpoints(run_dir)
    unsaved = NoCheckpointError(f"the run {run_dir} has not saved a checkpoint yet.")
    with Checkpoints(folder, read_only=True) as checkpoints:
        if checkpoints.is_empty():
            raise unsaved
        config = saved_config(checkpoints.read_metadata(step)[1])
        template, static = abstract_model(config.model)
        item = _item(config, average=average)
        if step is None:
            restored = checkpoints.restore_latest({item: template})
        else:
            restored = checkpoints.restore(step, {item: template})
    if restored is None:
        raise unsaved
    # Of the step that was read, which need not be the one whose metadata came first.
    restored_config = saved_config(restored.metadata)
    if restored_config.model != config.model:
        raise CheckpointError(
            f"the steps of {run_dir} are of different models; name one with --step."
        )
    if _item(restored_config, average=average) != item:
        raise CheckpointError(
            f"step {restored.step} of {run_dir} has an average of the weights "
            "(train.ema_decay), and a newer one, which is damaged, has none; name one "
            "with --step."
        )
    fingerprint = saved_fingerprints(restored.metadata).get("tokenizer")
    name = tokenizer_name(restored_config.data, fingerprint)
    return LoadedModel(
        model=eqx.combine(restored.items[item], static),
        config=restored_config,
        tokenizer=load_tokenizer(name, fingerprint),
        step=restored.step,
        refused=restored.refused,
        is_average=item == "average",
    )


def _item(config: RunConfig, *, average: bool) -> str:
    """Which part of a checkpoint is the model that is asked for."""
    return "average" if average and config.train.ema_decay > 0 else "model"


def _load_exported(folder: Path, step: int | None, *, average: bool) -> LoadedModel:
    exported = open_exported(folder)
    if step not in (None, exported.step):
        raise CheckpointError(
            f"{folder} is an exported model of step {exported.step}, and has no step "
            f"{step}. Export that step of the run."
        )
    if exported.is_average and not average:
        raise CheckpointError(
            f"{folder} is the average of a run's weights (train.ema_decay), and has no "
            "others. Export the run again with --no-average."
        )
    template, static = abstract_model(exported.config.model)
    return LoadedModel(
        model=eqx.combine(exported.read_arrays(template), static),
        config=exported.config,
        tokenizer=load_tokenizer(
            exported.config.data.tokenizer, exported.tokenizer_fingerprint
        ),
        step=exported.step,
        refused=(),
        is_average=exported.is_average,
    )
