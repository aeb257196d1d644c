"""What a checkpoint says about its run, and what must agree to go on from it."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from titans_eqx.checkpoint.errors import CheckpointError
from titans_eqx.config import RunConfig
from titans_eqx.config.errors import refusal, shown

FORMAT: Final = 4  # of the whole checkpoint; since 4 the arrays have checksums
BEFORE_VERSIONS: Final = "0.1"  # wrote formats 1 and 2, which do not name it
# Of the config: says where a run trains, not what; it may go on elsewhere.
PLACES: Final = frozenset({"mesh", "distributed"})
# What cuts a text into streams, which goes on with the states of their rows.
STREAM_KEYS: Final = (
    "data.seq_len",
    "data.lengths",
    "data.packing",
    "data.max_documents",
    "train.batch_size",
)
# Keys, and one section, that decide what a fingerprint is of.
CONTENT_KEYS: Final = (
    "data.source",
    "data.path",
    "data.eval_path",
    "data.eval_fraction",
    "data.tokenizer",
    "data.task",
)
CONTENTS: Final = {
    "tokenizer": "the tokenizer",
    "train": "the training text",
    "eval": "the held-out text",
    "task": "the task",
}
# Keys that cannot be switched on within a run: what they add was not saved.
SAVED_WITH: Final = ("train.ema_decay", "train.carry_state")
# Said by all commands that read a checkpoint, of which one alone has --fresh.
ANEW: Final = "train anew with titans-train --fresh, or in another folder"
PACKAGES: Final = ("titans_eqx", "jax", "equinox", "optax", "orbax-checkpoint")


class _Origin(BaseModel):
    """What the metadata of every format say about who wrote them, if anything."""

    model_config = ConfigDict(frozen=True, strict=True)

    format: Any = None
    versions: dict[str, str] = {}

    @property
    def writer(self) -> str:
        return self.versions.get("titans_eqx", BEFORE_VERSIONS)


class _Saved(_Origin):
    """The metadata of a checkpoint of this format."""

    config: dict[str, Any]
    fingerprints: dict[str, str]


def metadata(config: RunConfig, fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of a checkpoint, JSON values.

    Args:
        config: The run.
        fingerprints: Of what it is trained on: texts and tokenizer, or the task.
    """
    return {
        "format": FORMAT,
        "config": config.model_dump(mode="json", exclude=set(PLACES)),
        "fingerprints": dict(fingerprints),
        "versions": {name: version(name) for name in PACKAGES},
    }


def check_resumable(
    config: RunConfig, fingerprints: Mapping[str, str], saved: dict[str, Any]
) -> list[str]:
    """Compare a run with the saved metadata of the checkpoint it would continue.

    Returns:
        One line for each key that has changed and may change; where the weights once
        came from changes nothing any more.

    Raises:
        CheckpointError: If the model or the texts differ, a key was switched on whose
            part of the state was not saved, streams would be cut elsewhere, or the
            checkpoint is of another format.
    """
    parsed = _parse(saved)
    before, now = (
        one.model_dump(mode="json", exclude=set(PLACES))
        for one in (_config(parsed), config)
    )
    changes = differences(before, now)
    model_changes = _of(changes, "model")
    if model_changes:
        raise CheckpointError(
            "the checkpoint in the run folder is of another model: "
            f"{'; '.join(model_changes)}. Change it back, or {ANEW}."
        )
    for key in SAVED_WITH:
        section, name = key.split(".")
        if now[section][name] and not before[section][name]:
            raise CheckpointError(
                f"{key} was off when the checkpoint in the run folder was saved, and "
                "what it needs is not there. Switch it off, or start a run in another "
                "folder with train.init_from = this one."
            )
    cuts = _of(changes, *STREAM_KEYS)
    if config.train.carry_state and cuts:
        raise CheckpointError(
            f"with train.carry_state the text is cut into other streams: "
            f"{'; '.join(cuts)}. Change it back, or {ANEW}."
        )
    for name, fingerprint in fingerprints.items():
        known = parsed.fingerprints.get(name, "")
        # Of a task saved before its texts had hashes only the description is known.
        is_older = name == "task" and fingerprint.startswith(f"{known} ")
        if known != fingerprint and not is_older:
            keys = "; ".join(_of(changes, *CONTENT_KEYS))
            cause = (
                f": {keys}. Change it back"
                if keys
                else ", and no key that names it has changed: a file has. Restore it"
            )
            raise CheckpointError(
                f"{CONTENTS[name]} is not the one the checkpoint in the run folder was "
                f"trained with{cause}, or {ANEW}."
            )
    return [one for one in changes if not one.startswith("train.init_from ")]


def saved_config(saved: dict[str, Any]) -> RunConfig:
    """The config of the run that wrote a checkpoint; keys it lacks have their defaults.

    Raises:
        CheckpointError: If the checkpoint is of another format, its metadata are not
            what is ever written, or the config has keys or values that this version
            does not know.
    """
    return _config(_parse(saved))


def saved_fingerprints(saved: dict[str, Any]) -> dict[str, str]:
    """Of what the run that wrote a checkpoint was trained on; see `metadata`.

    Raises:
        CheckpointError: As `saved_config`.
    """
    return _parse(saved).fingerprints


def _parse(saved: dict[str, Any]) -> _Saved:
    try:
        origin = _Origin.model_validate(saved)
        if origin.format == FORMAT:
            return _Saved.model_validate(saved)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CheckpointError(
            "the metadata of the checkpoint have been changed: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}. Restore them, or "
            f"{ANEW}."
        ) from error
    raise CheckpointError(
        f"the checkpoint was written by titans_eqx {origin.writer} (format "
        f"{shown(origin.format)}); titans_eqx {version('titans_eqx')} reads format "
        f"{FORMAT}. Use that version, or {ANEW}."
    )


def _config(saved: _Saved) -> RunConfig:
    try:
        kept = {k: v for k, v in saved.config.items() if k not in PLACES}
        return RunConfig.model_validate(kept)
    except ValidationError as error:
        reason = refusal(error, "the config in the checkpoint", {})
        raise CheckpointError(
            f"{reason}. Use titans_eqx {saved.writer}, which wrote it."
        ) from error


def _of(changes: Sequence[str], *keys: str) -> list[str]:
    """Those of the lines of `differences` that are about these keys or sections."""
    starts = tuple(end for key in keys for end in (f"{key} ", f"{key}."))
    return [change for change in changes if change.startswith(starts)]


def differences(before: Any, now: Any, key: str = "") -> list[str]:
    """One line for each key, below `key`, that two configs as JSON differ in."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for name in sorted({*before, *now})
            for line in differences(
                before.get(name), now.get(name), f"{key}.{name}".lstrip(".")
            )
        ]
    return [] if before == now else [f"{key} was {before}, is {now}"]
