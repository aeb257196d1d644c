import pytest
from click.testing import CliRunner

from tests.refusal import assert_refused
from titans_eqx.commands.conversation import Conversation
from titans_eqx.commands.generate import main
from titans_eqx.terminal import escape_controls

LEN = ["--tokens", "20"]


@pytest.fixture
def generate(run_folder, tmp_path, monkeypatch):
    """A function that runs the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, text=None):
        options = ["--run", str(run_folder), *LEN, *arguments]
        return CliRunner().invoke(main, options, input=text)

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


WRONG = {
    "no run": (["--run", "none", "--prompt", "x"], "none is no run folder"),
    "two prompts": (["--prompt", "x", "--prompt-file", "y"], "exclude each other"),
    "no prompt": (["--prompt", ""], "the prompt is empty"),
    "missing text": (["--read", "none.txt"], "cannot read none.txt"),
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
