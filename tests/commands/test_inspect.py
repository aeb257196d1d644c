import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from titans_eqx.commands.inspect import main

SCRIPTS = Path(__file__).parents[2] / "scripts"
TEXT = "line 7 of the text\nline 8 of the text\n"


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    return "text.txt"


def test_figures_of_every_token_and_a_picture_are_written(run_folder, text, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["--run", str(run_folder), "--text", text, "--out", "out"]
    process = subprocess.run(
        [sys.executable, str(SCRIPTS / "inspect.py"), *arguments],
        env=os.environ | {"PYTHONPATH": str(SCRIPTS.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    lines = (tmp_path / "out" / "tokens.jsonl").read_text().splitlines()
    table = [json.loads(line) for line in lines]
    assert "".join(record["text"] for record in table) == TEXT
    assert [record["position"] for record in table] == list(range(len(TEXT)))
    assert [record["loss"] is None for record in table].index(False) == 1
    for record in table:
        (layer,) = record["layers"]
        assert layer["layer"] == 1
        assert len(layer["surprise"]) == len(layer["memory_norm"]) == 2
        assert len(layer["alpha"][0]) == len(layer["theta"][0]) == 2
    assert (tmp_path / "out" / "picture.png").read_bytes().startswith(b"\x89PNG")

    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2
    assert again.stderr == "error: out exists; name a new folder with --out.\n"


def test_scripts_beside_it_still_find_the_standard_librarys_inspect():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import inspect as i; "
    code += "print(i.__file__, i.isfunction(i.signature))"
    command = [sys.executable, "-S", "-c", code, str(SCRIPTS)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    file, works = output.split()
    assert Path(file).parent != SCRIPTS
    assert works == "True"


def test_wrong_options_are_one_line(run_folder, text, tmp_path):
    (tmp_path / "empty.txt").touch()
    for options, message in (
        (["--run", "none", "--text", text], "none is no run folder"),
        (["--run", str(run_folder), "--text", "none.txt"], "cannot read none.txt"),
        (["--run", str(run_folder), "--text", "empty.txt"], "empty.txt is empty"),
    ):
        result = CliRunner().invoke(main, options)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert message in line
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "empty.txt"}
