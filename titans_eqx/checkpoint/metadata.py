"""What a checkpoint says about its run, and what must agree to go on from it."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

from pydantic import ValidationError

from titans_eqx.checkpoint.errors import CheckpointError
from titans_eqx.config import RunConfig
from titans_eqx.config.errors import refusal

FORMAT: Final = 3
BEFORE_VERSIONS: Final = "0.1"  # wrote formats 1 and 2, which do not name it
PACKAGES: Final = ("titans_eqx", "jax", "equinox", "optax", "orbax-checkpoint")


def metadata(config: RunConfig, fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of a checkpoint, JSON values.

    Args:
        config: The run.
        fingerprints: Of what it is trained on: texts and tokenizer, or the task.
    """
    return {
        "format": FORMAT,
        "config": config.model_dump(mode="json"),
        "fingerprints": dict(fingerprints),
        "versions": {name: version(name) for name in PACKAGES},
    }


def check_resumable(
    config: RunConfig, fingerprints: Mapping[str, str], saved: dict[str, Any]
) -> list[str]:
    """Compare a run with the saved metadata of the checkpoint it would continue.

    Returns:
        One line for each key that has changed and may change.

    Raises:
        CheckpointError: If the model or the texts differ, or the checkpoint is of
            another format.
    """
    before = saved_config(saved).model_dump(mode="json")
    changes = _differences(before, config.model_dump(mode="json"))
    model_changes = [change for change in changes if change.startswith("model.")]
    if model_changes:
        raise CheckpointError(
            "the checkpoint in the run folder is of another model: "
            f"{'; '.join(model_changes)}. Use --fresh or another --run-dir."
        )
    for name, fingerprint in fingerprints.items():
        if saved["fingerprints"].get(name) != fingerprint:
            raise CheckpointError(
                f"the {name.replace('_', '-')} text or tokenizer is not the one the "
                "checkpoint in the run folder was trained with. Restore it, or use "
                "--fresh or another --run-dir."
            )
    return changes


def saved_config(saved: dict[str, Any]) -> RunConfig:
    """The config of the run that wrote a checkpoint; keys it lacks have their defaults.

    Raises:
        CheckpointError: If the checkpoint is of another format, or the config has keys
            or values that this version does not know.
    """
    writer = saved.get("versions", {}).get("titans_eqx", BEFORE_VERSIONS)
    if saved.get("format") != FORMAT:
        raise CheckpointError(
            f"the checkpoint was written by titans_eqx {writer} (format "
            f"{saved.get('format')!r}); titans_eqx {version('titans_eqx')} reads "
            f"format {FORMAT}. Use that version, or train anew with --fresh or another "
            "--run-dir."
        )
    try:
        return RunConfig.model_validate(saved["config"])
    except ValidationError as error:
        reason = refusal(error, "the config in the checkpoint", {})
        raise CheckpointError(
            f"{reason}. Use titans_eqx {writer}, which wrote it."
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
