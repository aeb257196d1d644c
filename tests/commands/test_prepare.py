from click.testing import CliRunner

from tests.refusal import assert_refused
from titans_eqx.commands.prepare import main


def test_texts_become_shards_and_the_same_command_again_keeps_them(tmp_path):
    (tmp_path / "text.txt").write_text("a line\n" * 300)
    options = ["--path", tmp_path / "text.txt", "--out", tmp_path / "new" / "shards"]
    arguments = [str(one) for one in (*options, "--tokenizer", "bytes")]
    first = CliRunner().invoke(main, arguments)
    assert first.exit_code == 0, first.output
    assert "the training text: 1,995 tokens for 1,995 bytes" in first.output
    assert "the held-out text: 105 tokens for 105 bytes" in first.output
    assert "--set model.vocab_size=256" in first.output
    files = sorted((tmp_path / "new" / "shards").glob("*.tokens"))
    before = [path.stat().st_mtime_ns for path in files]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert [path.stat().st_mtime_ns for path in files] == before
    message = "--vocab-size has no effect with --tokenizer"
    assert_refused(main, *arguments, "--vocab-size", 300, message=message)


def test_what_cannot_be_prepared_is_refused(tmp_path):
    out = ["--out", tmp_path / "s"]
    missing = tmp_path / "none"
    assert_refused(main, "--path", missing, *out, message="no such file or folder")
    (tmp_path / "t.txt").write_text("text " * 99)
    among = f"--out {tmp_path / 's'} lies in --path {tmp_path}, so that"
    assert_refused(main, "--path", tmp_path, *out, message=among)
    text = ["--path", tmp_path / "t.txt"]
    tokenizer = ["--tokenizer", tmp_path / "t.txt"]
    message = "is not a tokenizer.json"
    assert_refused(main, *text, *out, *tokenizer, message=message)
    message = "--vocab-size must be from 257"
    for size in (9, 10**11):
        assert_refused(main, *text, *out, "--vocab-size", size, message=message)
