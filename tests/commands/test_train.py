import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from click.testing import CliRunner

from tests.refusal import PHASE, assert_refused
from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.commands.train import main
from titans_eqx.config import load_config
from titans_eqx.training import context

ROOT = Path(__file__).parents[2]
CONFIG = """
[model]
pattern = "transformer"
d_model = 8
n_layers = 1

[model.memory]
n_heads = 2
chunk_len = 4

[model.attention]
n_heads = 2
segment_len = 8
window = 8

[data]
path = "text.txt"
seq_len = 16
eval_fraction = 0.2

[optimizer]
warmup_steps = 1

[train]
steps = 2
batch_size = 4
eval_every = 0
sample_every = 0
log_every = 1
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with a small config and its text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(CONFIG)
    lines = (f"line {i} of the text\n" for i in range(100))
    (tmp_path / "text.txt").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def no_model(monkeypatch):
    """Fail if a model is built, which is before the first thing is compiled."""

    def refuse(*arguments, **options):
        raise AssertionError("a model was built")

    monkeypatch.setattr(context, "build_model", refuse)


def run(*arguments):
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and reals
        return CliRunner().invoke(main, ["--config", "small.toml", *arguments])


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


WRONG_CONFIGS = {
    "unknown key": (
        ["model.d_modle=256"],
        "model.d_modle is not a key; did you mean model.d_model?",
    ),
    "wrong type": (["model.d_model=wide"], "model.d_model must be a whole number"),
    "out of bounds": (["train.steps=0"], "train.steps must be >= 1, got 0"),
    "no value": (["train.steps"], "write it as key=value"),
    "heads": (
        ["model.pattern=lmm", "model.memory.n_heads=3"],
        "model.d_model must be a multiple of model.memory.n_heads, got 8 and 3",
    ),
    "segments": (
        ["model.pattern=mac", "model.attention.segment_len=6"],
        "model.attention.segment_len must be a multiple of model.memory.chunk_len",
    ),
    "devices": (
        ["mesh.data=3"],
        "train.batch_size must be a multiple of mesh.data x mesh.fsdp x "
        "train.accumulate, got 4 and 3",
    ),
}


@pytest.mark.parametrize("name", WRONG_CONFIGS)
@pytest.mark.usefixtures("no_model")
def test_wrong_config_is_one_line(folder, name):
    overrides, message = WRONG_CONFIGS[name]
    options = [part for text in overrides for part in ("--set", text)]
    assert_refused(main, "--config", "small.toml", *options, message=message)
    assert names(folder) == {"small.toml", "text.txt"}


@pytest.mark.usefixtures("folder", "no_model")
def test_missing_config_is_one_line():
    message = "smal.toml: no such file; did you mean small.toml?"
    assert_refused(main, "--config", "smal.toml", message=message)


WRONG_TEXTS = {
    "missing": ("data.path=none.txt", "no such file or folder: none.txt"),
    "empty": ("data.path=empty.txt", "no text in empty.txt: the file is empty"),
    "no match": ("data.path=*.rst", "no file matches the glob *.rst"),
    "too short": ("data.path=short.txt", "one example needs 17 (data.seq_len + 1)"),
    "too few rows": ("train.batch_size=400", "fewer than one batch of 400"),
    "held out missing": ("data.eval_path=none.txt", "no such file or folder"),
    "tokenizer": ("data.tokenizer=none.json", "no tokenizer file at none.json"),
    "endless text": ("data.path=/dev/zero", "/dev/zero is neither a file nor a folder"),
    "endless tokenizer": ("data.tokenizer=/dev/zero", "it is a pipe or a device"),
    "text of the kernel": ("data.path=/proc/cpuinfo", "the file is empty"),
}


@pytest.mark.parametrize("name", WRONG_TEXTS)
@pytest.mark.usefixtures("no_model")
def test_wrong_text_is_one_line_before_anything_is_compiled(folder, name):
    (folder / "empty.txt").touch()
    (folder / "short.txt").write_text("too short")
    override, message = WRONG_TEXTS[name]
    before = names(folder)
    options = ["--config", "small.toml", "--set", override]
    assert_refused(main, *options, message=message)
    assert names(folder) == before


@pytest.mark.usefixtures("folder", "no_model")
def test_too_many_devices_are_one_line():
    options = ["--config", "small.toml", "--set", "train.batch_size=64"]
    options += ["--set", "mesh.data=64"]
    message = "mesh.data asks for 64 devices, but there are"
    assert_refused(main, *options, message=message)


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.toml")))
def test_printed_config_is_the_same_config(folder, config):
    arguments = ["--config", str(config), "--set", "train.steps=777"]
    result = CliRunner().invoke(main, [*arguments, "--print-config"])
    assert result.exit_code == 0
    printed = folder / "printed.toml"
    printed.write_text(result.stdout)
    assert load_config(printed) == load_config(config, ["train.steps=777"])
    assert names(folder) == {"small.toml", "text.txt", "printed.toml"}


def test_dry_run_says_what_a_run_is_and_leaves_no_files(folder):
    overrides = ["model.pattern=mac", "train.steps=1000"]
    options = [part for text in overrides for part in ("--set", text)]
    result = run(*options, "--dry-run")
    assert result.exit_code == 0, result.output
    said = [line for line in result.stdout.splitlines() if not PHASE.match(line)]
    titles = [line.split()[0] for line in said]
    assert titles == [
        "model",
        "parameters",
        "memory",
        "state",
        "step",
        "run",
        "text",
        "devices",
    ]
    lines = dict(zip(titles, said, strict=True))
    assert "mac, 1 layers, width 8" in lines["model"]
    assert "activations and gradients" in lines["memory"]
    assert "bytes per sequence, whatever its length" in lines["state"]
    assert "64 tokens (4 sequences of 16)" in lines["step"]
    assert "1,000 steps, 64,000 tokens" in lines["run"]
    assert lines["devices"].endswith("(cpu; data 4 x fsdp 1)")
    assert names(folder) == {"small.toml", "text.txt"}


@pytest.mark.usefixtures("folder")
def test_what_cannot_fit_is_refused_but_may_be_looked_at():
    wide = ["--set", "model.d_model=131072", "--set", "model.n_layers=256"]
    message = "needs more memory than there is: "
    said = assert_refused(main, "--config", "small.toml", *wide, message=message)
    looked = run(*wide, "--dry-run")
    assert looked.exit_code == 0, looked.output
    (line,) = (x for x in looked.stdout.splitlines() if x.startswith("memory"))
    for shown in (line, said):
        assert "on each of 4 devices: parameters 192 TiB, optimizer 384 TiB" in shown


def test_dry_run_counts_every_parameter(folder):
    result = run("--dry-run")
    (line,) = (x for x in result.stdout.splitlines() if x.startswith("parameters"))
    embedding, norms = 256 * 8, 3 * 8
    attention, persistent, feedforward = 4 * 8 * 8, 4 * 8, 3 * 32 * 8
    total = embedding + norms + attention + persistent + feedforward
    assert line.split()[1] == f"{total:,}"
    assert f"({total:,} trained, 0 frozen)" in line


@pytest.mark.usefixtures("folder")
def test_dry_run_counts_the_tokens_of_lengths_that_take_turns():
    overrides = ["data.lengths=[16, 8, 16]", "train.steps=7", "train.batch_size=2"]
    result = run(*(p for text in overrides for p in ("--set", text)), "--dry-run")
    assert result.exit_code == 0, result.output
    assert "16 to 32 tokens (2 sequences of 8 to 16)" in result.stdout
    tokens = 2 * (16 + 8 + 16 + 16 + 8 + 16 + 16)
    assert f"7 steps, {tokens} tokens" in result.stdout


def test_a_run_of_another_version_is_refused(folder):
    with Checkpoints(folder / "runs" / "small" / "checkpoints") as checkpoints:
        checkpoints.save(1, {"arrays": {"step": jnp.int32(1)}}, {"format": 2})
    message = "the checkpoint was written by titans_eqx 0.1 (format 2)"
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and reals
        assert_refused(main, "--config", "small.toml", message=message)


@pytest.mark.usefixtures("folder")
def test_a_config_in_the_folder_of_its_run_stays_the_users(folder):
    mine = folder / "mine" / "config.toml"
    mine.parent.mkdir()
    mine.write_text(f"# mine\n{CONFIG}")
    command = ["--config", str(mine), "--run-dir", str(mine.parent)]
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and reals
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        assert mine.read_text() == f"# mine\n{CONFIG}"
        result = CliRunner().invoke(main, [*command, "--set", "train.steps=3"])
    previous = mine.parent / "previous" / "1"
    assert f"the earlier config.toml is now in {previous}" in result.output
    assert (previous / "config.toml").read_text() == f"# mine\n{CONFIG}"
    assert load_config(mine).train.steps == 3


def test_results_are_in_a_folder_named_after_the_config(folder):
    process = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), "--config", "small.toml"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    results = folder / "runs" / "small"
    lines = (results / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 2]
    assert load_config(results / "config.toml") == load_config("small.toml")

    (folder / "configs" / "deep").mkdir(parents=True)
    (folder / "configs" / "deep" / "small.toml").write_text(CONFIG)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and reals
        result = CliRunner().invoke(main, ["--config", "configs/deep/small.toml"])
    assert result.exit_code == 0, result.output
    assert (folder / "runs" / "deep" / "small" / "metrics.jsonl").exists()
