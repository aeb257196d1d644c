import os
import pwd
import subprocess
import sys

import jax
import pytest

COMPILE = """
from titans_eqx.commands.compilation_cache import keep_compiled_programs
keep_compiled_programs()
import jax
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.config.jax_compilation_cache_dir)
jax.jit(lambda x: x + 1)(1.0)
"""


@pytest.mark.parametrize("asked", [None, "mine"])
def test_programs_are_kept_for_this_host_or_where_the_user_says(tmp_path, asked):
    env = dict(os.environ, HOME=str(tmp_path), XDG_CACHE_HOME="~/caches")
    del env["JAX_COMPILATION_CACHE_DIR"]
    if asked is not None:
        env["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / asked)
    command = [sys.executable, "-c", COMPILE]
    printed = subprocess.check_output(command, env=env, text=True)
    (kept,) = (
        (tmp_path / "caches" / "titans_eqx").iterdir()
        if asked is None
        else [tmp_path / asked]
    )
    assert printed.strip() == str(kept)
    assert any(kept.iterdir())


@pytest.mark.parametrize("caches", ["", "~nosuch/caches"])
def test_without_a_home_nothing_is_kept_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, caches: str
) -> None:
    from titans_eqx.commands.compilation_cache import keep_compiled_programs

    def no_such_user(_: object) -> None:
        raise KeyError

    monkeypatch.setenv("XDG_CACHE_HOME", caches)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_such_user)
    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir is None  # type: ignore[attr-defined]
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
