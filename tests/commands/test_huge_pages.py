import os
import re
import sys
import types

import click
import pytest

from titans_eqx.commands import huge_pages, sweep, train
from titans_eqx.commands.huge_pages import use_huge_pages, with_huge_pages

TUNABLES = "GLIBC_TUNABLES"
OURS = "glibc.malloc.hugetlb=1"


@pytest.fixture(autouse=True)
def choice(tmp_path, monkeypatch):
    """A Linux with glibc 2.36 that gives huge pages to programs that ask."""
    path = tmp_path / "enabled"
    path.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "CHOICE", path)
    monkeypatch.setattr(huge_pages, "_library", lambda: "glibc 2.36")
    return path


def program(file="train.py", **names):
    """A main module that defines some names."""
    module = types.ModuleType("__main__")
    module.__file__ = file
    vars(module).update(names)
    return module


@pytest.fixture
def started(monkeypatch):
    """What was started in place of this program, which looks like a launcher."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda *call, env: calls.append((*call, env)))
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-u", "train.py", "--config"])
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    monkeypatch.setitem(sys.modules, "__main__", program(main=train.main))
    monkeypatch.setattr(huge_pages.multiprocessing, "parent_process", lambda: None)
    monkeypatch.delenv("TITANS_EQX_HUGE_PAGES")
    monkeypatch.delenv(TUNABLES, raising=False)
    return calls


def test_other_tunables_stay():
    assert with_huge_pages({"A": "b"}) == {"A": "b", TUNABLES: OURS}
    tuned = with_huge_pages({TUNABLES: "glibc.malloc.arena_max=1"})
    assert tuned[TUNABLES] == f"glibc.malloc.arena_max=1:{OURS}"


@pytest.mark.parametrize(
    "environment",
    [
        {"TITANS_EQX_HUGE_PAGES": "0"},
        {TUNABLES: "glibc.malloc.hugetlb=0"},
        {TUNABLES: OURS},
    ],
)
def test_the_user_chooses(environment):
    assert with_huge_pages(environment) == environment


@pytest.mark.parametrize("text", ["[always] madvise never", "always madvise [never]"])
def test_programs_without_a_choice_are_left_alone(choice, text):
    choice.write_text(text)
    assert with_huge_pages({}) == {}
    choice.unlink()
    assert with_huge_pages({}) == {}


@pytest.mark.parametrize("library", ["glibc 2.34", "musl 1.2", "", "glibc x"])
def test_other_libraries_are_left_alone(monkeypatch, library):
    monkeypatch.setattr(huge_pages, "_library", lambda: library)
    assert with_huge_pages({}) == {}


def test_the_same_command_is_started_once(monkeypatch, started):
    use_huge_pages()
    ((program, arguments, environment),) = started
    assert program == arguments[0] == sys.executable
    assert arguments[1:] == ["-u", "train.py", "--config"]
    assert environment[TUNABLES] == OURS
    monkeypatch.setattr(os, "environ", environment)
    use_huge_pages()
    assert len(started) == 1
    del environment[TUNABLES]  # as some systems do
    use_huge_pages()
    assert len(started) == 1


def test_console_scripts_are_launchers_too(monkeypatch, started):
    script = program("bin/titans-sweep", re=re, sys=sys, main=sweep.main)
    monkeypatch.setitem(sys.modules, "__main__", script)
    use_huge_pages()
    assert len(started) == 1


OTHERS = [
    program(),
    program(main=lambda: None),
    program(main=click.Command("train", callback=lambda: None)),
    program(main=train.main, results=[]),
    program(file=None, main=train.main),
]


def test_only_a_program_of_its_own_is_started_again(monkeypatch, started):
    for main_module in OTHERS:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "__main__", main_module)
            use_huge_pages()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "gettrace", lambda: print)
        use_huge_pages()
    with monkeypatch.context() as patch:
        patch.setattr(huge_pages.multiprocessing, "parent_process", lambda: 1)
        use_huge_pages()
    assert not started


def test_what_cannot_be_started_goes_on(monkeypatch, started):
    def refuse(*call, env):
        raise PermissionError

    monkeypatch.setattr(os, "execve", refuse)
    use_huge_pages()
