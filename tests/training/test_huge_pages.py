import os
import sys

import pytest

from titans_eqx.training import huge_pages
from titans_eqx.training.huge_pages import use_huge_pages, with_huge_pages

TUNABLES = "GLIBC_TUNABLES"
OURS = "glibc.malloc.hugetlb=1"


@pytest.fixture(autouse=True)
def choice(tmp_path, monkeypatch):
    """A Linux with glibc 2.36 that gives huge pages to programs that ask."""
    path = tmp_path / "enabled"
    path.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "CHOICE", path)
    monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: ("glibc", "2.36"))
    return path


def test_what_the_user_tunes_stays():
    assert with_huge_pages({})[TUNABLES] == OURS
    tuned = with_huge_pages({TUNABLES: "glibc.malloc.arena_max=1"})
    assert tuned[TUNABLES] == f"glibc.malloc.arena_max=1:{OURS}"


@pytest.mark.parametrize(
    "environment",
    [{"TITANS_EQX_HUGE_PAGES": "0"}, {"TITANS_EQX_HUGE_PAGES": "1", TUNABLES: OURS}],
)
def test_a_choice_is_made_once(environment):
    assert with_huge_pages(environment) == environment


@pytest.mark.parametrize("text", ["[always] madvise never", "always madvise [never]"])
def test_programs_without_a_choice_are_left_alone(choice, text):
    choice.write_text(text)
    assert with_huge_pages({}) == {}
    choice.unlink()
    assert with_huge_pages({}) == {}


@pytest.mark.parametrize("version", [("glibc", "2.34"), ("musl", "1.2"), ("", "")])
def test_other_libraries_are_left_alone(monkeypatch, version):
    monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: version)
    assert with_huge_pages({}) == {}


def test_the_same_command_is_started_once(monkeypatch):
    started = []
    monkeypatch.setattr(os, "execve", lambda *call, env: started.append((*call, env)))
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-u", "train.py", "--config"])
    monkeypatch.delenv("TITANS_EQX_HUGE_PAGES")
    use_huge_pages()
    ((program, arguments, environment),) = started
    assert program == arguments[0] == sys.executable
    assert arguments[1:] == ["-u", "train.py", "--config"]
    assert environment[TUNABLES].endswith(OURS)
    monkeypatch.setattr(os, "environ", environment)
    use_huge_pages()
    assert len(started) == 1
