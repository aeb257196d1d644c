"""Starting a run from the weights of another one, such as TNT's second stage."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

from titans_eqx.checkpoint.checkpoints import CheckpointError
from titans_eqx.checkpoint.load_model import load_model
from titans_eqx.checkpoint.metadata import differences
from titans_eqx.checkpoint.model_folder import require_model
from titans_eqx.config import RunConfig, TrainConfig
from titans_eqx.errors import UserError
from titans_eqx.training.state import TrainState


def check_source(source: str, run_dir: Path) -> None:
    """Refuse what cannot be started from, before a run's results are moved away for it.

    Args:
        source: train.init_from.
        run_dir: Folder of the run that starts over.

    Raises:
        CheckpointError: If the source has no model, or is that folder itself.
    """
    with _naming_the_key():
        require_model(source)
    if Path(source).resolve() == run_dir.resolve():
        raise CheckpointError(
            f"train.init_from: {source} is the run's own folder, whose results --fresh "
            "would move away first. Choose another --run-dir."
        )


def start_from(
    state: TrainState,
    run_dir: str | Path,
    config: RunConfig,
    tokenizer: str | None,
) -> tuple[TrainState, list[str]]:
    """A run's first state with the latest weights of another run; the rest is fresh.

    Args:
        state: The first state of the run.
        run_dir: The folder of the other run, or of an exported model.
        config: Of the run. Its model may differ from the other's in what has no
            parameters, such as chunk lengths.
        tokenizer: Fingerprint of the run's; None where its tokens are no text.

    Returns:
        The state, and lines for the user: where the weights are from, what differs.

    Raises:
        CheckpointError: If the folder has no usable checkpoint, or its model has other
            parameters or another tokenizer.
    """
    with _naming_the_key():
        loaded = load_model(run_dir)
    before, now = (
        {"model": one.model.model_dump(mode="json")} for one in (loaded.config, config)
    )
    changes = differences(before, now)
    if tokenizer not in (None, loaded.tokenizer.fingerprint):
        raise CheckpointError(
            f"train.init_from: {run_dir} was trained with data.tokenizer = "
            f'"{loaded.config.data.tokenizer}", which is not the tokenizer of this '
            "run. Use the same one."
        )
    own = state.items()["model"]
    weights = eqx.filter(loaded.model, eqx.is_array)
    if _shapes(weights) != _shapes(own):
        raise CheckpointError(
            f"train.init_from: the model of {run_dir} has other parameters: "
            f"{'; '.join(changes)}. Change these keys back."
        )
    lines = [f"starting with the weights of {run_dir}, step {loaded.step:,}"]
    lines += [f"warning: {line}" for line in loaded.refused]
    for change in changes:
        lines.append(f"changed since: {change}")
        if "chunk_len" in change:
            lines.append(
                "warning: weights trained with one chunk length read worse with "
                "another until they are trained on with it"
            )
    # Not `jax.tree.map` over both: static fields, such as chunk lengths, may differ.
    leaves, structure = jax.tree.flatten(own)
    placed = structure.unflatten(
        jax.make_array_from_callback(
            new.shape, old.sharding, np.asarray(new).__getitem__
        )
        for new, old in zip(jax.tree.leaves(weights), leaves, strict=True)
    )
    return TrainState.from_items({**state.items(), "model": placed}), lines


def ignored_start(now: TrainConfig, before: TrainConfig) -> str | None:
    """A line for the user where another start is asked for than a run had."""
    if not now.init_from or Path(now.init_from).name == Path(before.init_from).name:
        return None
    return (
        f"train.init_from = {now.init_from} has no effect: the run goes on from its "
        "own checkpoint. To start from there, use --fresh or another --run-dir."
    )


@contextlib.contextmanager
def _naming_the_key() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise CheckpointError(f"train.init_from: {error}") from error


def _shapes(tree: object) -> dict[str, tuple[object, object]]:
    return {
        jax.tree_util.keystr(path): (leaf.shape, leaf.dtype)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
