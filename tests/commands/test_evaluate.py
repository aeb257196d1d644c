import json

import pytest
from click.testing import CliRunner

from scripts import evaluate, sweep


def run(command, *arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments])


def assert_refused(result, message):
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_perplexity_by_position_is_written(run_folder, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["--run", run_folder, "--task", "perplexity", "--length", 80]
    arguments += ["--rows", 3, "--out", tmp_path / "out"]
    result = run(evaluate.main, *arguments)
    assert result.exit_code == 0, result.output
    table = json.loads((tmp_path / "out" / "results.json").read_text())["table"]
    assert [(row["from"], row["to"]) for row in table] == [
        (0, 32),
        (32, 64),
        (64, 80),
        (0, 80),
    ]
    *parts, whole = table
    mean = sum(row["nats"] * row["tokens"] for row in parts) / whole["tokens"]
    assert whole["nats"] == pytest.approx(mean)
    assert (tmp_path / "out" / "picture.png").exists()
    assert_refused(run(evaluate.main, *arguments), "holds results; name a new folder")


def test_a_text_model_is_asked_for_needles_but_not_for_pairs(run_folder, tmp_path):
    arguments = ["--run", run_folder, "--out", tmp_path / "out", "--rows", 2]
    arguments += ["--no-picture", "--length", 200]
    result = run(evaluate.main, *arguments, "--task", "needle", "--depth", 0.5)
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())["table"]
    assert (row["length"], row["depth"], row["cases"]) == (200, 0.5, 2)
    other = ["--run", run_folder, "--task", "recall"]
    assert_refused(
        run(evaluate.main, *other), "recall needs a run trained on one of mqar"
    )
    none = ["--run", tmp_path / "none", "--task", "recall"]
    assert_refused(run(evaluate.main, *none), "is no run folder")


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
    "train.eval_rows": 4,
    "train.checkpoint_every": 2,
    "data.task.held_out_rows": 8,
    "optimizer.warmup_steps": 1,
}


def test_a_sweep_trains_measures_and_goes_on(tmp_path, monkeypatch):
    import dataclasses

    import jax

    from titans_eqx.evaluation import sweep as library

    small = dataclasses.replace(library.RECALL, lengths=(64,), pairs=(2,), n_rows=2)
    monkeypatch.setattr(library, "RECALL", small)
    options = [f"--set={key}={value}" for key, value in SMALL.items()]
    arguments = ["--suite", "recall", "--out", tmp_path, "--no-picture", *options]
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and reals
        first = run(sweep.main, *arguments, "--only", "lmm")
        assert first.exit_code == 0, first.output
        second = run(sweep.main, *arguments, "--only", "transformer")
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
    wrong = run(sweep.main, *arguments, "--only", "lm")
    assert_refused(wrong, "which has mac, mag, mal, lmm, transformer.")
