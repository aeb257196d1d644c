"""Preparing shards: from texts to a folder that runs are trained on.

Which text goes into which shard depends on the texts alone, not on how many processes
encode them, and a shard that is there is whole; so a run that was killed goes on with
the shards that are missing.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from titans_eqx.data.bpe import train_bpe
from titans_eqx.data.documents import Document, TextPaths, path_names
from titans_eqx.data.encoding import ShardJob, encode_shards
from titans_eqx.data.errors import DataError
from titans_eqx.data.shard import VERSION, content_fingerprint, open_shard
from titans_eqx.data.shard_folder import ListedShard, Manifest, read_manifest
from titans_eqx.data.shard_plan import plan_shards
from titans_eqx.data.split import find_texts
from titans_eqx.data.tokenizer import TOKENIZER, Tokenizer, load_tokenizer
from titans_eqx.files import locked, write_durably
from titans_eqx.terminal import phase

LOCK: Final = "lock"
PARTIAL: Final = ".partial-*"  # what `replacing` has left when it was killed


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """What shards are made of."""

    path: TextPaths | None = None  # as in data.path
    eval_path: TextPaths | None = None  # as in data.eval_path
    eval_fraction: float = 0.05  # as in data.eval_fraction
    tokenizer: str | None = None  # as in data.tokenizer; None trains one
    vocab_size: int = 8192  # the most tokens of the one that is trained
    shard_bytes: int = 64 * 2**20  # of text in a shard, about
    n_processes: int = 1  # that encode


def prepare(out: Path, settings: PrepareSettings) -> None:
    """Write a folder of shards, or finish one that was begun.

    Args:
        out: The folder: a new one, an empty one, or one that was begun with the same
            settings and texts.
        settings: What to write.

    Raises:
        DataError: If a text or the tokenizer cannot be used, or the folder holds
            something else, or lies in a folder of texts.
        OSError: If the folder cannot be written.
    """
    sides = find_texts(
        "stdlib", settings.path, settings.eval_path, settings.eval_fraction
    )
    _check_apart(out, settings.path, "--path")
    _check_apart(out, settings.eval_path, "--eval-path")
    plans = [plan_shards(side, settings.shard_bytes) for side in sides]
    given = None if settings.tokenizer is None else load_tokenizer(settings.tokenizer)
    source = f"bpe {settings.vocab_size}" if given is None else given.fingerprint
    contents = [content_fingerprint(p, source) for plan in plans for p in plan]
    request = hashlib.sha256(" ".join([str(VERSION), *contents]).encode()).hexdigest()
    out.mkdir(parents=True, exist_ok=True)
    in_use = DataError(
        f"another titans-prepare is writing to {out}; wait for it, or stop it"
    )
    with locked(out / LOCK, in_use):
        begun = _begun(out, request)
        if begun is None or not (out / TOKENIZER).exists():
            content = (
                _trained(sides[0], settings.vocab_size)
                if given is None
                else given.file_content
            )
            _install_tokenizer(out / TOKENIZER, content)
        name = str(out / TOKENIZER) if (out / TOKENIZER).exists() else "bytes"
        tokenizer = load_tokenizer(name)
        if begun is not None and begun.tokenizer != tokenizer.fingerprint:
            raise DataError(
                f"{out / TOKENIZER} is not the tokenizer that the shards beside it "
                "were made with; put that one there, or name a new folder with --out"
            )
        jobs = [
            [
                ShardJob(
                    path=out / f"{side}-{index:05}.tokens",
                    pieces=tuple(pieces),
                    content=content_fingerprint(pieces, tokenizer.fingerprint),
                )
                for index, pieces in enumerate(plan)
            ]
            for side, plan in zip(("train", "eval"), plans, strict=True)
        ]
        if begun is None:
            _manifest(request, tokenizer, jobs, {}).write(out)
        hashes = _write_all([job for side in jobs for job in side], name, settings)
        _manifest(request, tokenizer, jobs, hashes).write(out)


def _check_apart(out: Path, texts: TextPaths | None, option: str) -> None:
    """Refuse a folder of texts: the same command would find one more the next time."""
    for name in path_names(texts or ()):
        if os.path.isdir(name) and Path(os.path.realpath(out)).is_relative_to(
            os.path.realpath(name)
        ):
            raise DataError(
                f"--out {out} lies in {option} {name}, so that what is written there "
                "would be taken for texts; name a folder outside of it with --out"
            )


def _begun(out: Path, request: str) -> Manifest | None:
    """The manifest of a folder in which the same was begun; None if nothing was."""
    manifest = read_manifest(out)
    if manifest is not None and manifest.request != request:
        raise DataError(
            f"{out} holds shards of other texts, another tokenizer or other settings; "
            "name a new folder with --out"
        )
    leftovers = set(out.glob(PARTIAL))
    ours = {out / LOCK, out / TOKENIZER, *leftovers}
    if manifest is None and not ours.issuperset(out.iterdir()):
        raise DataError(
            f"{out} is not empty, and holds no shards; name a new folder with --out"
        )
    for leftover in leftovers:
        leftover.unlink()
    return manifest


def _trained(documents: Sequence[Document], vocab_size: int) -> bytes:
    total = sum(one.length for one in documents)
    with phase("training the tokenizer", total=total) as advance:
        return train_bpe(documents, vocab_size, advance)


def _install_tokenizer(path: Path, content: bytes | None) -> None:
    """Put a tokenizer.json there, unless it is; never in the place of another.

    Bytes have no file (None): one that is there is another tokenizer too.
    """
    if path.exists():
        if path.read_bytes() != content:
            raise DataError(
                f"{path} is another tokenizer; name a new folder with --out"
            )
    elif content is not None:
        write_durably(path, content)


def _manifest(
    request: str,
    tokenizer: Tokenizer,
    jobs: Sequence[Sequence[ShardJob]],
    hashes: Mapping[Path, str],
) -> Manifest:
    train, evaluated = (
        tuple(
            ListedShard(
                file=job.path.name, content=job.content, sha256=hashes.get(job.path)
            )
            for job in side
        )
        for side in jobs
    )
    return Manifest(
        request=request,
        tokenizer=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        train=train,
        held_out=evaluated,
    )


def _write_all(
    jobs: Sequence[ShardJob], tokenizer: str, settings: PrepareSettings
) -> dict[Path, str]:
    """Write the shards that are not there yet; the hash of each by its path."""
    with phase("looking for finished shards"):
        hashes = {job.path: found for job in jobs if (found := _finished(job))}
    todo = [job for job in jobs if job.path not in hashes]
    n_bytes = {job.path: sum(one.text.length for one in job.pieces) for job in todo}
    with phase("encoding", total=sum(n_bytes.values())) as advance:
        for path, sha256 in encode_shards(todo, tokenizer, settings.n_processes):
            hashes[path] = sha256
            advance(n_bytes[path])
    return hashes


def _finished(job: ShardJob) -> str | None:
    """The hash of a shard that is there and whole."""
    try:
        shard = open_shard(job.path)
        is_whole = shard.header.content == job.content and shard.has_its_bytes()
    except DataError:
        return None
    return shard.header.sha256 if is_whole else None
