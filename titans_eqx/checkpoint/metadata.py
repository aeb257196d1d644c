"""Going on from a checkpoint: what is saved beside the arrays, and what must agree."""

from importlib.metadata import version
from typing import Any, Final

from pydantic import ValidationError

from titans_eqx.config import RunConfig
from titans_eqx.config.errors import refusal
from titans_eqx.checkpoint.checkpoints import CheckpointError
from titans_eqx.training.context import Setup

FORMAT: Final = 2


def checkpoint_metadata(setup: Setup) -> dict[str, Any]:
    """What a checkpoint says about its run.

    Args:
        setup: The run.

    Returns:
        Format, config, fingerprints of texts and tokenizer, and versions; JSON values.
    """
    return {
        "format": FORMAT,
        "config": setup.config.model_dump(mode="json"),
        "source": setup.source.fingerprints,
        "versions": {name: version(name) for name in ("jax", "equinox", "optax")},
    }


def check_resumable(setup: Setup, metadata: dict[str, Any]) -> list[str]:
    """Compare a run with the checkpoint it would go on from.

    Args:
        setup: The run.
        metadata: From the checkpoint.

    Returns:
        One line for each key that has changed and may change.

    Raises:
        CheckpointError: If the model or the texts differ, or cannot be read.
    """
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"the checkpoint has format {metadata.get('format')!r}, this version of "
            f"titans_eqx reads format {FORMAT}. Use --fresh or another --run-dir."
        )
    before = saved_config(metadata).model_dump(mode="json")
    now = setup.config.model_dump(mode="json")
    changes = _differences(before, now)
    model_changes = [c for c in changes if c.startswith("model.")]
    if model_changes:
        raise CheckpointError(
            "the checkpoint in the run folder is of another model: "
            f"{'; '.join(model_changes)}. Use --fresh or another --run-dir."
        )
    for name, fingerprint in setup.source.fingerprints.items():
        if metadata["source"].get(name) != fingerprint:
            raise CheckpointError(
                f"the {name.replace('_', '-')} text or tokenizer is not the one the "
                "checkpoint in the run folder was trained with. Restore it, or use "
                "--fresh or another --run-dir."
            )
    return changes


def saved_config(metadata: dict[str, Any]) -> RunConfig:
    """The config of the run that wrote a checkpoint.

    Args:
        metadata: From the checkpoint.

    Returns:
        The config; keys that came after the checkpoint have their defaults.

    Raises:
        CheckpointError: If it has keys or values that this version does not know.
    """
    try:
        return RunConfig.model_validate(metadata["config"])
    except ValidationError as error:
        reason = refusal(error, "the config in the checkpoint", {})
        raise CheckpointError(
            f"{reason}. Use the version of titans_eqx that wrote it."
        ) from error


def _differences(before: Any, now: Any, key: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for name in sorted({*before, *now})
            for line in _differences(
                before.get(name), now.get(name), f"{key}.{name}".lstrip(".")
            )
        ]
    return [] if before == now else [f"{key} was {before}, is {now}"]
