"""Joining the processes of a run, and ending with them."""

import atexit
import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Final

import jax
from jax.experimental import multihost_utils

from titans_eqx.errors import UserError
from titans_eqx.terminal.last_words import LOG_LEVEL, LastWords

# Seconds in which processes that fail of the same can say so themselves; those that
# are left are aborted when process 0 ends.
PATIENCE: Final = 2.0
# Seconds that a lost process needs to be missed, beyond the timeout of its heartbeat.
NOTICE: Final = 20.0


class ConnectionFailure(UserError):
    """The processes of a run cannot be joined; the message is one line."""


@contextlib.contextmanager
def connected(
    *,
    auto: bool,
    coordinator: str,
    num_processes: int,
    process_id: int,
    connect_timeout: int,
    heartbeat_timeout: int,
) -> Iterator[None]:
    """Be one of the processes of a run until the block ends.

    Nothing may have touched a device before. If another process is lost, or cannot be
    reached at the start, jax aborts this one, and one line says so. The arguments are
    the keys of the section `distributed` of a config; without other processes nothing
    happens.

    Raises:
        ConnectionFailure: If the processes cannot be joined.
    """
    if not auto and num_processes == 1:
        yield
        return
    if not auto:
        _check_address(coordinator, is_ours=process_id == 0)
    me = "this process" if auto else f"process {process_id} of {num_processes}"
    place = coordinator or "the coordinator that was detected"
    words = LastWords()
    words.say(
        f"error: {me} could not be joined with the others at {place} within "
        f"{connect_timeout} s. Start all of them, each with a distributed.process_id "
        "of its own, and see that they can reach that address."
    )
    try:
        _initialize(
            None if auto else (coordinator, num_processes, process_id),
            connect_timeout,
            heartbeat_timeout,
        )
        words.say(
            f"error: process {jax.process_index()} of {jax.process_count()} has ended "
            "early: it was killed, or has lost another one (see what that says). The "
            "same command in all processes goes on from the last checkpoint; "
            f"{LOG_LEVEL}=0 shows all that jax says."
        )
        yield
        # Without a limit of time, which the end of the connection has.
        multihost_utils.sync_global_devices("the end of the run")
    except BaseException as error:
        if _is_of_runtime(error):
            # The devices of a lost process are missed before it is itself. If nobody
            # is lost, the error is ours.
            time.sleep(heartbeat_timeout + NOTICE)
        words.close()
        if jax.distributed.is_initialized():
            # An orderly end would wait for the others, who wait for this one.
            atexit.register(_end_process, _exit_code(error))
        raise
    words.close()
    jax.distributed.shutdown()


def require_joined(num_processes: int) -> None:
    """Refuse to train alone what is meant for several processes.

    Args:
        num_processes: Of the config; 1 says nothing.

    Raises:
        ConnectionFailure: If there are not so many.
    """
    if num_processes not in (1, jax.process_count()):
        raise ConnectionFailure(
            f"distributed.num_processes = {num_processes}, but this is one of "
            f"{jax.process_count()}. Use titans-train, which joins them, "
            "titans_eqx.sharding.connection.connected, or "
            "distributed.num_processes = 1."
        )


def _initialize(
    address: tuple[str, int, int] | None, connect_timeout: int, heartbeat_timeout: int
) -> None:
    coordinator, num_processes, process_id = address or (None, None, None)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=connect_timeout,
            heartbeat_timeout_seconds=heartbeat_timeout,
        )
    except (ValueError, RuntimeError) as error:
        hint = (
            "Nothing that jax knows started this process; set distributed.coordinator, "
            "num_processes and process_id instead of distributed.auto."
            if address is None
            else "Join the processes before anything else is done with jax."
        )
        raise ConnectionFailure(
            f"cannot join the processes of the run: {str(error).rstrip('.')}. {hint}"
        ) from error
    counts = jax.device_count(), jax.local_device_count() * jax.process_count()
    if counts[0] != counts[1]:
        raise ConnectionFailure(
            "every process must have as many devices, but this one has "
            f"{jax.local_device_count()}, and all {jax.process_count()} have "
            f"{jax.device_count()} in all."
        )


def _check_address(coordinator: str, *, is_ours: bool) -> None:
    """Find out what jax would not survive: an unknown host, a port in use."""
    host, _, port = coordinator.rpartition(":")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
        if is_ours:
            socket.create_server(("", int(port))).close()
    except (OSError, UnicodeError) as error:
        reason = (
            error.strerror or error
            if isinstance(error, OSError)
            else "a part of the host name is empty, too long or has a wrong character"
        )
        raise ConnectionFailure(
            f'distributed.coordinator = "{coordinator}": {reason}. '
            "Name the host of process 0 and a free port there."
        ) from error


def _is_of_runtime(error: BaseException | None) -> bool:
    return error is not None and (
        isinstance(error, jax.errors.JaxRuntimeError)
        or _is_of_runtime(error.__cause__ or error.__context__)
    )


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, OSError):
        return UserError.exit_code
    return getattr(error, "exit_code", 1)


def _end_process(exit_code: int) -> None:
    """End without a word to the others; jax will end them."""
    if jax.process_index() == 0:
        time.sleep(PATIENCE)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)
