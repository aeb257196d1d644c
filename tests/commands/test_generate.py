import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.refusal import assert_refused
from titans_eqx.commands.conversation import Conversation
from titans_eqx.commands.generate import main
from titans_eqx.errors import UserError
from titans_eqx.files import locked
from titans_eqx.terminal import escape_controls

LEN = ["--tokens", "20"]


@pytest.fixture
def generate(run_folder, tmp_path, monkeypatch):
    """A function that runs the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, text=None, charset="utf-8"):
        options = ["--run", str(run_folder), *LEN, *arguments]
        return CliRunner(charset=charset).invoke(main, options, input=text)

    return run


def written(result):
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_prompt_from_anywhere_draws_the_same_text(generate, tmp_path):
    (tmp_path / "prompt.txt").write_text("line 3")
    expected = written(generate("--prompt", "line 3"))
    assert len(expected) > 5
    assert written(generate("--prompt-file", "prompt.txt")) == expected
    assert written(generate(text="line 3")) == expected
    assert written(generate("--prompt", "line 3", "--seed", "1")) != expected


def test_reading_today_and_asking_tomorrow_is_reading_on(generate, tmp_path):
    (tmp_path / "book.txt").write_text("line 7 of the text\n" * 40)
    written(generate("--read", "book.txt", "--session", "s"))
    parted = written(generate("--prompt", "line", "--session", "s"))
    prompt = "line 7 of the text\n" * 40 + "line"
    assert written(generate("--prompt", prompt)) == parted


def test_a_conversation_keeps_its_memory(generate):
    # Long enough for a difference in the memory to show in what is drawn.
    talk = ["--interactive", "--tokens", "60"]
    both = written(generate(*talk, text="one\ntwo\n"))
    first = written(generate(*talk, "--session", "s", text="one\n"))
    second = written(generate(*talk, "--session", "s", "--seed", "1", text="two\n"))
    assert both == first + second
    alone = written(generate(*talk, "--seed", "1", text="two\n"))
    assert second != alone


def test_a_stop_text_ends_the_output(generate):
    greedy = ["--prompt", "line", "--temperature", "0"]
    everything = written(generate(*greedy))
    stop = everything[3]
    ended = written(generate(*greedy, "--stop", stop))
    assert ended == everything[: everything.index(stop) + 1] + "\n"


def test_what_steers_a_terminal_is_escaped_unless_asked_for(generate):
    # So hot that any byte is drawn.
    noise = ["--prompt", "line", "--temperature", "100", "--tokens", "60"]
    escaped, raw = written(generate(*noise)), written(generate(*noise, "--raw"))
    assert escape_controls(escaped) == escaped != raw
    assert escape_controls(raw) == escaped


def test_a_raw_text_that_the_output_cannot_show_is_escaped(generate):
    noise = ["--prompt", "line", "--temperature", "100", "--tokens", "60", "--raw"]
    assert r"\ufffd" in written(generate(*noise, charset="latin-1"))


def test_a_session_belongs_to_one_process_at_a_time(generate, tmp_path):
    written(generate("--prompt", "line", "--session", "s"))
    assert [one.name for one in tmp_path.iterdir()] == ["s"]
    (tmp_path / "link").symlink_to("s")
    # There is no such run: had it been looked at first, that would be said.
    arguments = ["--run", "none", "--prompt", "x", "--session"]
    with locked(tmp_path / ".s.lock", UserError("in use")):
        for name in ("s", "link"):
            message = "is in use by another titans-generate. Wait for it, stop it, or"
            assert_refused(main, *arguments, name, message=message)
    assert_refused(main, *arguments, "s", message="none is no run folder")


def test_a_link_to_no_folder_is_refused_before_any_work(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "no" / "session")
    arguments = ["--run", "none", "--prompt", "x", "--session", tmp_path / "link"]
    assert_refused(main, *arguments, message="there is no folder for it")


WRONG = {
    "no run": (["--run", "none", "--prompt", "x"], "none is no run folder"),
    "two prompts": (["--prompt", "x", "--prompt-file", "y"], "exclude each other"),
    "no prompt": (["--prompt", ""], "the prompt is empty"),
    "missing text": (["--prompt-file", "none.txt"], "cannot read none.txt"),
    "temperature": (["--prompt", "x", "--temperature", "-1"], "temperature must be"),
    "top p": (["--prompt", "x", "--top-p", "0"], "top_p must be in (0, 1]"),
    "stop": (["--prompt", "x", "--stop", "ab"], "--stop must be a single token"),
    "session": (["--prompt", "x", "--session", "no/s"], "there is no folder for it"),
    "two voices": (["--prompt", "x", "--interactive"], "reads its prompts itself"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_are_one_line(run_folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    arguments, message = WRONG[name]
    assert_refused(main, "--run", run_folder, *arguments, message=message)


BEFORE_THE_MODEL = {
    "session is a folder": (["--session", "."], "cannot write .: there is something"),
    "session is a pipe": (["--session", "pipe"], "cannot write pipe: there is someth"),
    "long session": (["--session", "s" * 300], "File name too long. Choose another"),
    "nothing kept": (["--read", "book.txt"], "what --read reads would be lost"),
    "prompt from a pipe": (["--prompt-file", "pipe"], "cannot read pipe: it is a pipe"),
    "endless text": (
        ["--prompt", "x", "--read", "/dev/zero"],
        "cannot read /dev/zero: it is a pipe or a device, not a file.",
    ),
    "huge text": (["--prompt-file", "huge"], "it has more than 268,435,456 bytes"),
}


@pytest.mark.parametrize("name", BEFORE_THE_MODEL)
def test_what_would_fail_late_or_never_end_is_refused_at_once(
    tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("book.txt").write_text("line 7 of the text\n")
    with Path("huge").open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    arguments, message = BEFORE_THE_MODEL[name]
    # There is no such run: had it been looked at first, that would be said.
    options = ["--run", "none", "--prompt", "x"]
    if {"--read", "--prompt-file"} & set(arguments):
        options = ["--run", "none"]
    assert_refused(main, *options, *arguments, message=message)


def test_what_was_read_is_saved_before_anything_else_can_fail(
    generate, tmp_path, monkeypatch
):
    (tmp_path / "book.txt").write_text("line 7 of the text\n" * 3)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Conversation, "write", interrupt)
        cut = generate("--read", "book.txt", "--prompt", "x", "--session", "s")
        assert cut.exit_code != 0
        talk = generate("--interactive", "--session", "t", text="one\n")
        assert talk.exit_code == 0
    after = written(generate("--prompt", "line", "--session", "s"))
    prompt = "line 7 of the text\n" * 3 + "line"
    assert written(generate("--prompt", prompt)) == after
    assert (tmp_path / "t").exists()
