import dataclasses
import json

import jax
from click.testing import CliRunner

from tests.refusal import assert_refused
from titans_eqx.commands.sweep import main
from titans_eqx.evaluation import sweep as library

SMALL = {
    "model.d_model": 8,
    "model.n_layers": 1,
    "model.memory.n_heads": 2,
    "model.memory.expansion": 1,
    "data.seq_len": 32,
    "data.lengths": "[16, 32]",
    "data.task.n_pairs": 2,
    "train.steps": 4,
    "train.batch_size": 4,
    "train.eval_every": 2,
    "train.eval_examples": 4,
    "train.checkpoint_every": 2,
    "data.task.eval_examples": 8,
    "optimizer.warmup_steps": 1,
}


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_sweep_trains_measures_and_goes_on(tmp_path, monkeypatch):
    small = dataclasses.replace(
        library.RECALL, lengths=(64,), n_pairs=(2,), n_examples=2
    )
    monkeypatch.setattr(library, "RECALL", small)
    options = [f"--set={key}={value}" for key, value in SMALL.items()]
    arguments = ["--suite", "recall", "--out", tmp_path, "--no-picture", *options]
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and reals
        first = run(*arguments, "--only", "lmm")
        assert first.exit_code == 0, first.output
        second = run(*arguments, "--only", "transformer")
        assert second.exit_code == 0, second.output
    assert "nothing to do" in second.output
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["run"] for row in table if row["distance"] == 0] == [
        "lmm",
        "transformer",
    ]
    metrics = (tmp_path / "lmm" / "metrics.jsonl").read_text().splitlines()
    assert "eval_accuracy" in json.loads(metrics[-1])
    assert "bits_per_byte" not in json.loads(metrics[0])
    names = "which has mac, mag, mal, lmm, transformer."
    assert_refused(main, *arguments, "--only", "lm", message=names)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_trained(
    tmp_path,
):
    (tmp_path / "file").touch()
    arguments = ["--suite", "recall", "--no-picture", "--out", tmp_path / "file"]
    assert_refused(main, *arguments, message="table.json: Not a directory")


def test_without_a_checkout_the_option_is_named(tmp_path):
    arguments = ["--suite", "recall", "--out", tmp_path, "--configs", tmp_path / "no"]
    assert_refused(main, *arguments, message="name the folder configs of a checkout")
