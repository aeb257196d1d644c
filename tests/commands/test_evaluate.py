import importlib
import json
import math

import equinox as eqx
import jax.numpy as jnp
import optax
import pytest
from click.testing import CliRunner

from tests.refusal import assert_refused
from titans_eqx import load_model
from titans_eqx.commands import evaluate
from titans_eqx.errors import UserError
from titans_eqx.evaluation.accuracy import AccuracySettings


def run(command, *arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments])


def test_perplexity_by_position_is_written(run_folder, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["--run", run_folder, "--task", "perplexity", "--length", 80]
    arguments += ["--examples", 3, "--out", tmp_path / "out"]
    result = run(evaluate.main, *arguments)
    assert result.exit_code == 0, result.output
    table = json.loads((tmp_path / "out" / "results.json").read_text())["table"]
    assert [(row["context"], row["from"], row["to"]) for row in table] == [
        ("all", 0, 32),
        ("all", 32, 64),
        ("all", 64, 80),
        ("new", 0, 80),
        ("near repeat", 0, 80),
        ("far repeat", 0, 80),
        ("all", 0, 80),
    ]
    *parts, new, near, far, whole = table
    assert new["tokens"] + near["tokens"] + far["tokens"] == whole["tokens"]
    assert min(new["tokens"], far["tokens"]) > 0
    assert (near["tokens"], near["nats"]) == (0, None)  # lines are longer than a window
    kinds = sum(row["nats"] * row["tokens"] for row in (new, far))
    assert whole["nats"] == pytest.approx(kinds / whole["tokens"])
    mean = sum(row["nats"] * row["tokens"] for row in parts) / whole["tokens"]
    assert whole["nats"] == pytest.approx(mean)
    assert (tmp_path / "out" / "picture.png").exists()
    again = "holds results; name a new folder"
    assert_refused(evaluate.main, *arguments, message=again)


def test_what_another_command_wrote_meanwhile_is_kept(
    run_folder, tmp_path, monkeypatch
):
    out = tmp_path / "out"

    def measure_slowly(*_):
        out.mkdir()
        (out / "results.json").write_text("of the other")
        return [{"accuracy": 1.0}], None

    # The package has a function of the module's name.
    module = importlib.import_module("titans_eqx.evaluation.evaluate")
    monkeypatch.setattr(module, "_measure", measure_slowly)
    settings = AccuracySettings()
    with pytest.raises(UserError, match="out holds results; name a new folder"):
        module.evaluate(run_folder, settings, out, with_picture=False)
    assert (out / "results.json").read_text() == "of the other"


def test_an_empty_path_is_not_the_working_directory(run_folder):
    arguments = ["--run", run_folder, "--task", "perplexity", "--out", ""]
    result = run(evaluate.main, *arguments)
    assert result.exit_code == 2
    assert "Invalid value for '--out': is empty" in result.output


def test_a_text_is_read_once_beside_compressors(run_folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {i} of the text\n" for i in range(150)))
    arguments = ["--run", run_folder, "--task", "prequential", "--no-picture"]
    arguments += ["--out", tmp_path / "out"]
    result = run(evaluate.main, *arguments, "--text", text)
    assert result.exit_code == 0, result.output
    table = json.loads((tmp_path / "out" / "results.json").read_text())["table"]
    n_bytes = text.stat().st_size
    assert [row["bytes"] for row in table] == [1024, 2048, n_bytes]
    # Bits from the start are those of the parts, and those a byte read alone costs.
    bits = sum(
        row["since the last"] * (row["bytes"] - before)
        for row, before in zip(table, (0, 1024, 2048), strict=True)
    )
    assert table[-1]["model"] == pytest.approx(bits / n_bytes)
    model = load_model(run_folder).model
    tokens = jnp.asarray(list(text.read_bytes()), jnp.int32)
    logits, _ = eqx.filter_jit(model)(tokens[:-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[1:])
    expected = (8 + float(losses.sum()) / math.log(2)) / n_bytes
    assert table[-1]["model"] == pytest.approx(expected, rel=1e-4)
    assert {"gzip -9", "bzip2 -9", "xz -9"} <= table[0].keys()
    assert table[-1]["xz -9"] < table[0]["xz -9"]

    arguments[-1] = tmp_path / "other"
    without = "reads a text; name its file with --text"
    assert_refused(evaluate.main, *arguments, message=without)
    short = tmp_path / "short"
    short.write_text("a")
    for path, message in ((short, "has 1 tokens"), (tmp_path / "none", "cannot read")):
        assert_refused(evaluate.main, *arguments, "--text", path, message=message)


def test_what_it_costs_to_take_the_memory_away_is_written(run_folder, tmp_path):
    arguments = ["--run", run_folder, "--no-picture", "--length", 80, "--examples", 3]
    arguments += ["--task", "memory-use", "--out", tmp_path / "use"]
    result = run(evaluate.main, *arguments, "--reset-every", 32)
    assert result.exit_code == 0, result.output
    table = json.loads((tmp_path / "use" / "results.json").read_text())["table"]
    lines = {(row["memory"], row["from"], row["to"]): row for row in table}
    for start, stop in ((0, 32), (32, 64), (64, 80), (0, 80)):
        trained = lines["as trained", start, stop]
        assert (trained["difference"], trained["low"], trained["high"]) == (0, 0, 0)
        for name in ("reads are zero", "no writes", "new every 32"):
            row = lines[name, start, stop]
            worse = row["bits per byte"] - trained["bits per byte"]
            assert row["difference"] == pytest.approx(worse, abs=1e-6)
            assert row["low"] <= row["difference"] <= row["high"]
    # Up to where they start anew the memories are the same.
    assert lines["new every 32", 0, 32]["difference"] == pytest.approx(0, abs=1e-6)
    assert lines["new every 32", 32, 64]["difference"] != 0

    arguments[-1] = tmp_path / "other"
    message = "a memory can start anew after a multiple of"
    assert_refused(evaluate.main, *arguments, "--reset-every", 33, message=message)


def test_layers_are_measured_by_what_their_memories_add(run_folder, tmp_path):
    arguments = ["--run", run_folder, "--no-picture", "--length", 80, "--examples", 2]
    arguments += ["--task", "memory-layers", "--out", tmp_path / "layers"]
    result = run(evaluate.main, *arguments)
    assert result.exit_code == 0, result.output
    table = json.loads((tmp_path / "layers" / "results.json").read_text())["table"]
    for line in table:
        assert line.keys() == {"layer", "read over stream", "alpha", "eta", "theta"}
        assert 0 < line["read over stream"] < 10
        assert 0 < line["alpha"] < 1
    message = "--batch-size has no effect with --task memory-layers"
    assert_refused(evaluate.main, *arguments, "--batch-size", 2, message=message)


def test_a_text_model_is_asked_for_needles_but_not_for_pairs(run_folder, tmp_path):
    arguments = ["--run", run_folder, "--out", tmp_path / "out", "--examples", 2]
    arguments += ["--no-picture", "--length", 200]
    result = run(evaluate.main, *arguments, "--task", "needle", "--depth", 0.5)
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())["table"]
    assert (row["length"], row["depth"], row["cases"]) == (200, 0.5, 2)
    other = ["--run", run_folder, "--task", "recall"]
    message = "recall needs a run trained on one of mqar"
    assert_refused(evaluate.main, *other, message=message)
    none = ["--run", tmp_path / "none", "--task", "recall"]
    assert_refused(evaluate.main, *none, message="is no run folder")


def test_a_folder_that_cannot_be_written_is_refused_before_the_model_is_read(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "picture.png").touch()
    # It has no checkpoint: had they been looked at first, that would be said.
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    arguments = ["--run", tmp_path / "run", "--task", "perplexity", "--out"]
    for out, message in (
        (tmp_path / "file" / "out", "Not a directory. Choose another with --out."),
        (tmp_path / "out", "holds results; name a new folder with --out"),
        (tmp_path / ("o" * 300), "File name too long"),
    ):
        assert_refused(evaluate.main, *arguments, out, message=message)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "out", "run"}


WITHOUT_EFFECT = {
    "--pairs": ("needle", "4"),
    "--depth": ("recall", "0.5"),
    "--seed": ("perplexity", "1"),
    "--text": ("recall", "file"),
    "--window": ("needle", "4"),
    "--examples": ("prequential", "4"),
}


@pytest.mark.parametrize("option", WITHOUT_EFFECT)
def test_options_of_another_measure_are_refused(run_folder, option):
    task, value = WITHOUT_EFFECT[option]
    arguments = ["--run", run_folder, "--task", task, option, value]
    message = f"{option} has no effect with --task {task}"
    assert_refused(evaluate.main, *arguments, message=message)


def test_what_no_machine_can_hold_is_refused_at_once(run_folder):
    arguments = ["--run", run_folder, "--task", "perplexity"]
    for option in ("--length", "--examples", "--batch-size"):
        result = run(evaluate.main, *arguments, option, 10**12)
        assert result.exit_code == 2
        assert f"'{option}': {10**12} is not in the range" in result.output


def test_perplexity_of_two_lengths_is_refused(run_folder):
    arguments = ["--run", run_folder, "--task", "perplexity"]
    arguments += ["--length", 16, "--length", 32]
    assert_refused(evaluate.main, *arguments, message="give --length once")
