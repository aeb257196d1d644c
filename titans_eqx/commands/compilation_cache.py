"""Compiled programs outlive the process, so that a second start is fast."""

import contextlib
import os
import platform
from typing import Final

import jax

from titans_eqx.errors import UserError
from titans_eqx.files import cache_folder

SHORTEST: Final = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def keep_compiled_programs() -> None:
    """Keep what takes long to compile in the user's cache folder.

    `$XDG_CACHE_HOME/titans_eqx/<host>`, `~/.cache` without that variable: a folder for
    each host, because a program for one CPU need not run on another that shares the
    home. An explicit setting of the user (`JAX_COMPILATION_CACHE_DIR`) wins. A folder
    that cannot be written is a warning of jax, not an error; without a home folder
    nothing is kept.

    Nothing is removed either. A cache that jax bounds (its option
    `jax_compilation_cache_max_size`) keeps no new program, and warns at each, once one
    is there without a time of use: of a process that was killed, or of no bound.
    """
    if SHORTEST not in os.environ:  # a start has many programs of a few milliseconds
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    with contextlib.suppress(UserError):
        folder = cache_folder() / platform.node()
        jax.config.update("jax_compilation_cache_dir", str(folder))
