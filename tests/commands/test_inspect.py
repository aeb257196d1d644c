import json

import equinox as eqx
import jax.random as jr
import pytest
from click.testing import CliRunner

from tests.refusal import assert_refused
from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.metadata import metadata
from titans_eqx.commands.inspect import main
from titans_eqx.config import AttentionConfig, ModelConfig, RunConfig
from titans_eqx.models import build_model

TEXT = "line 7 of the text\nline 8 of the text\n"


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    return "text.txt"


def test_numbers_of_every_token_and_a_picture_are_written(run_folder, text, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["--run", str(run_folder), "--text", text, "--out", "out"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "out" / "tokens.jsonl").read_text().splitlines()
    table = [json.loads(line) for line in lines]
    assert "".join(record["text"] for record in table) == TEXT
    assert [record["position"] for record in table] == list(range(len(TEXT)))
    assert [record["loss"] is None for record in table].index(False) == 1
    for record in table:
        (layer,) = record["layers"]
        assert layer["layer"] == 1
        assert len(layer["surprise"]) == len(layer["memory_norm"]) == 2
        # One gate of each head for its one linear map.
        assert len(layer["alpha"][0]) == len(layer["theta"][0]) == 1
    assert (tmp_path / "out" / "picture.png").read_bytes().startswith(b"\x89PNG")

    message = "error: out exists; name a new folder with --out."
    assert assert_refused(main, *arguments, message=message) == message


@pytest.fixture
def without_memory(tmp_path_factory):
    """A run whose model has no memory."""
    attention = AttentionConfig(n_heads=2, window=8)
    config = ModelConfig(
        pattern="transformer", d_model=8, n_layers=1, attention=attention
    )
    model = build_model(config, key=jr.key(0))
    folder = tmp_path_factory.mktemp("transformer")
    with Checkpoints(folder / "checkpoints") as checkpoints:
        items = {"model": eqx.filter(model, eqx.is_array)}
        checkpoints.save(1, items, metadata(RunConfig(model=config), {}))
    return folder


def test_wrong_options_are_one_line(run_folder, without_memory, text, tmp_path):
    (tmp_path / "empty.txt").touch()
    for options, message in (
        (["--run", "none", "--text", text], "none is no run folder"),
        (["--run", str(run_folder), "--text", "none.txt"], "cannot read none.txt"),
        (["--run", str(run_folder), "--text", "empty.txt"], "empty.txt is empty"),
        (["--run", "none", "--text", text, "--out", "empty.txt/out"], "Not a directo"),
        (["--run", "none", "--text", "/dev/zero"], "a pipe or a device, not a file"),
        (["--run", str(without_memory), "--text", text], "has no memory to look"),
    ):
        assert_refused(main, *options, message=message)
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "empty.txt"}
