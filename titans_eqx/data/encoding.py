"""Encoding shards, in this process or in several side by side."""

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from titans_eqx.data.errors import DataError
from titans_eqx.data.shard import Piece, write_shard
from titans_eqx.data.tokenizer import load_tokenizer
from titans_eqx.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """A shard to be written."""

    path: Path
    pieces: tuple[Piece, ...]
    content: str  # fingerprint for its header


def encode_shards(
    jobs: Sequence[ShardJob], tokenizer: str, n_processes: int
) -> Iterator[tuple[Path, str]]:
    """Write shards.

    Args:
        jobs: What to write.
        tokenizer: As for `load_tokenizer`.
        n_processes: How many write side by side; 1 starts none.

    Yields:
        Path and hash of each shard, once it is whole.

    Raises:
        DataError: If a document cannot be read, or a process was killed.
        OSError: If a shard cannot be written.
    """
    n_processes = min(n_processes, len(jobs))
    if n_processes > 1:
        return _encode_in_processes(jobs, tokenizer, n_processes)
    return (_encode(job, tokenizer) for job in jobs)


def _encode_in_processes(
    jobs: Sequence[ShardJob], tokenizer: str, n_processes: int
) -> Iterator[tuple[Path, str]]:
    # Not forked: jax may have threads, whose locks a fork would leave held. Pipes and
    # no pool: a pool leaves semaphores behind when Ctrl-C ends the command.
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(jobs))
    processes: list[BaseProcess] = []
    busy: list[Connection] = []
    try:
        for _ in range(n_processes):
            pipe, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, tokenizer))
            process.start()
            processes.append(process)
            theirs.close()
            pipe.send(waiting.pop())
            busy.append(pipe)
        while busy:
            for pipe in multiprocessing.connection.wait(busy):
                assert isinstance(pipe, Connection)
                try:
                    result = pipe.recv()
                except (EOFError, ConnectionError):
                    raise DataError(
                        "a process that encodes was killed, perhaps for want of "
                        "memory; the same command goes on, and --processes 1 needs "
                        "the least"
                    ) from None
                if isinstance(result, Exception):
                    raise result
                if waiting:
                    pipe.send(waiting.pop())
                else:
                    busy.remove(pipe)
                    pipe.close()
                yield result
    finally:
        # Nobody waits for a shard that is not finished.
        for process in processes:
            process.terminate()
            process.join()


def _serve(pipe: Connection, tokenizer: str) -> None:
    """Encode what comes through a pipe, until it is closed or the parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError):
        while True:
            job = pipe.recv()
            try:
                result = _encode(job, tokenizer)
            except (OSError, UserError) as error:
                result = error
            pipe.send(result)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode(job: ShardJob, tokenizer: str) -> tuple[Path, str]:
    shard = write_shard(job.path, job.pieces, _loaded(tokenizer), job.content)
    return job.path, shard.header.sha256


_loaded = functools.lru_cache(maxsize=1)(load_tokenizer)  # once for a process
