import math
import re
import shutil
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tests.training.metrics import records
from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.metrics_log import TensorBoardLog
from titans_eqx.checkpoint.run_folder import RunFolder, RunFolderError
from titans_eqx.config import load_config
from titans_eqx.terminal import escape_controls
from titans_eqx.training import TrainContext, context, loop, throughput
from titans_eqx.training.divergence import SKIPS_IN_A_ROW, DivergedError
from titans_eqx.training.profile_window import ProfileWindow
from titans_eqx.training.sample import PROMPT_LEN

LOGGED = {
    "step",
    "loss",
    "bits_per_byte",
    "tokens_per_second",
    "flops_per_second",
    "gradient_norm",
    "skipped_steps",
}
EVALUATED = {"eval_loss", "eval_accuracy", "eval_bits_per_byte"}


def contents(folder):
    """Bytes of every file of results."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def parameters(folder, config, step):
    items = TrainContext.build(config, abstract=True).state.items()
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(step, {"model": items["model"]})
    return jax.tree.leaves(restored.items["model"])


@pytest.fixture
def tiny(small_config):
    """A run that compiles fast: no memory."""

    def make(**changes):
        return small_config(model__pattern="transformer", **changes)

    return make


def test_everything_is_written_into_the_run_folder(finished_run):
    _, folder, _ = finished_run
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "checkpoints",
        "config.toml",
        "lock",
        "metrics.jsonl",
        "samples.txt",
    }
    steps = {path.name for path in (folder / "checkpoints").iterdir()}
    assert steps == {"4", "6"}


def test_metrics_have_a_line_for_each_report(finished_run):
    config, folder, _ = finished_run
    *lines, final = records(folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        with_evaluation = line["step"] in (2, 4)
        assert line.keys() == LOGGED | (EVALUATED if with_evaluation else set())
        assert line["skipped_steps"] == 0
        assert line["tokens_per_second"] > 0
    assert final.keys() == {"step"} | EVALUATED
    assert final["step"] == 6


def test_bits_per_byte_stand_for_the_text_of_the_tokens(finished_run):
    config, folder, _ = finished_run
    train = TrainContext.build(config, abstract=True).data.train_corpus
    for line in records(folder):
        if "loss" in line:
            bits = line["loss"] / math.log(2)
            bits *= train.n_tokens / train.n_bytes
            assert line["bits_per_byte"] == pytest.approx(bits)
    assert records(folder)[0]["bits_per_byte"] == pytest.approx(8, abs=0.2)


def without_speed(folder):
    """The bytes of the metrics, but for the numbers that a clock made."""
    content = (folder / "metrics.jsonl").read_bytes()
    return re.sub(rb'"(tokens|flops)_per_second": [^,}]+', b"", content)


@pytest.mark.slow
def test_the_same_run_again_writes_the_same_bytes(
    finished_run, train_quietly, tmp_path
):
    config, folder, _ = finished_run
    train_quietly(config, tmp_path)
    assert without_speed(tmp_path) == without_speed(folder)
    for name in ("samples.txt", "config.toml"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.slow
def test_left_out_spikes_are_in_the_metrics(tiny, train_quietly, tmp_path):
    config = tiny(optimizer__spike_sigmas=1e-6, optimizer__spike_window=2)
    train_quietly(config, tmp_path)
    left_out = [line["spike_steps"] for line in records(tmp_path) if "loss" in line]
    assert left_out[:2] == [0, 0]
    assert left_out == sorted(left_out)
    assert left_out[-1] > 0


def test_loss_falls(finished_run):
    _, folder, _ = finished_run
    evaluated = [line["eval_loss"] for line in records(folder) if "eval_loss" in line]
    assert len(evaluated) == 3
    assert evaluated == sorted(evaluated, reverse=True)


def test_config_in_the_folder_is_the_config_of_the_run(finished_run):
    config, folder, _ = finished_run
    assert load_config(folder / "config.toml") == config


def test_samples_go_on_from_held_out_text(finished_run):
    config, folder, output = finished_run
    text = (folder / "samples.txt").read_text(encoding="utf-8")
    title, first, second = re.split(r"--- step \d+\n", text)
    assert re.findall(r"--- step (\d+)\n", text) == ["3", "6"]
    corpus = TrainContext.build(config, abstract=True).data.eval_corpus
    held_out = corpus.read(0, corpus.n_tokens).tobytes().decode()
    prompt = first[: min(PROMPT_LEN, config.data.seq_len)]
    assert title == ""
    assert prompt in held_out
    assert second.startswith(prompt)
    # The model has learned next to nothing and writes any byte.
    assert escape_controls(text) == text
    assert re.search(r"\\x[01]", first + second)
    assert "sample at step 3:" in output
    assert "sample at step 6:" in output


def test_end_compares_the_model_with_compressors(finished_run):
    config, folder, output = finished_run
    n_examples = len(TrainContext.build(config, abstract=True).data.eval_examples)
    title, *lines = output[output.rindex("bits per byte on") :].splitlines()
    assert title == f"bits per byte on {n_examples * 16:,} tokens of held-out text:"
    bits = {line[:14].strip(): float(line[14:]) for line in lines}
    assert list(bits)[:4] == ["this model", "gzip -9", "bzip2 -9", "xz -9"]
    final = records(folder)[-1]["eval_bits_per_byte"]
    assert bits["this model"] == pytest.approx(final, abs=5e-4)
    assert 0 < bits["gzip -9"] < 8


def test_run_begins_with_its_phases_and_its_sizes(finished_run):
    _, _, output = finished_run
    said = re.sub(r"\[\d+:\d\d\] ", "", output)
    assert said.startswith(
        "reading the data\nbuilding the model\nmodel       lmm, 1 layers, width 8\n"
    )
    compiling = said.index("\ncompiling\n")
    assert said.index("\ndevices ") < compiling < said.index("\nstep 1/6 ")
    assert said.count("compiling") == 1


def test_speed_is_that_of_training_alone(tiny, train_quietly, tmp_path, monkeypatch):
    hours = []
    clock = SimpleNamespace(
        perf_counter=lambda: time.perf_counter() + 3600 * len(hours)
    )
    monkeypatch.setattr(throughput, "time", clock)

    def make_long(owner, name):
        real = getattr(owner, name)

        def take_an_hour(*arguments):
            hours.append(name)
            return real(*arguments)

        monkeypatch.setattr(owner, name, take_an_hour)

    make_long(loop, "write_sample")
    make_long(loop, "evaluate")
    make_long(Checkpoints, "save")
    every_step = {"train__sample_every": 1, "train__checkpoint_every": 1}
    config = tiny(train__steps=3, **every_step)
    train_quietly(config, tmp_path)
    assert sorted(hours) == ["evaluate"] * 2 + ["save"] * 3 + ["write_sample"] * 3
    for line in records(tmp_path)[:-1]:
        assert 4 * 16 / line["tokens_per_second"] < 60


def test_fresh_run_moves_earlier_results_aside(tiny_run, train_quietly, tmp_path):
    config, folder = tiny_run
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    output = train_quietly(config, tmp_path, fresh=True)
    previous = tmp_path / "previous" / "1"
    assert f"earlier results are now in {previous}" in output
    assert [line["step"] for line in records(tmp_path)] == [1, 2, 2]
    kept = {name for name in before if name.name not in ("lock", "notes.txt")}
    assert {name: before[name] for name in kept} == contents(previous)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("optax_promotion")
def test_losses_between_reports_are_averaged(tiny, train_quietly, tmp_path):
    options = {"train__steps": 4, "train__eval_every": 0}
    train_quietly(tiny(**options), tmp_path / "each")
    train_quietly(tiny(**options, train__log_every=3), tmp_path / "some")
    each = [line["loss"] for line in records(tmp_path / "each") if "loss" in line]
    some = [line for line in records(tmp_path / "some") if "loss" in line]
    assert [line["step"] for line in some] == [1, 3, 4]
    means = [each[0], np.mean(each[1:3]), each[3]]
    np.testing.assert_allclose([line["loss"] for line in some], means, rtol=1e-6)


@pytest.mark.slow
def test_run_without_finite_gradients_gives_up(tiny, train_quietly, tmp_path):
    # The first step throws the weights so far that no later gradient is finite.
    config = tiny(
        optimizer__learning_rate=1e30,
        optimizer__warmup_steps=0,
        train__steps=50,
        train__log_every=7,
        train__eval_every=0,
    )
    with pytest.raises(DivergedError, match="no finite gradient .*learning_rate") as e:
        train_quietly(config, tmp_path)
    assert "or model.memory.max_learning_rate." in str(e.value)
    logged = records(tmp_path)
    assert len(logged) <= SKIPS_IN_A_ROW
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        last = checkpoints.steps()[-1]
    assert str(e.value).endswith(f"The last checkpoint, of step {last}, is intact.")
    assert e.value.exit_code == 3
    assert all(np.isfinite(leaf).all() for leaf in parameters(tmp_path, config, last))


def test_run_that_diverged_unsaved_claims_no_checkpoint(tiny, train_quietly, tmp_path):
    config = tiny(
        optimizer__learning_rate=1e30,
        optimizer__warmup_steps=0,
        train__steps=50,
        train__eval_every=0,
        train__checkpoint_every=0,
    )
    with pytest.raises(DivergedError, match="No checkpoint was written yet"):
        train_quietly(config, tmp_path)


def test_folder_in_use_is_refused_before_a_model_is_built(
    tiny, train_quietly, tmp_path, monkeypatch
):
    def refuse(*arguments, **options):
        raise AssertionError("a model was built")

    monkeypatch.setattr(context, "build_model", refuse)
    with (
        RunFolder(tmp_path),
        pytest.raises(
            RunFolderError,
            match=r"in use by process \d+ on .*--run-dir \(in a sweep --out\)",
        ),
    ):
        train_quietly(tiny(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"lock"}


@pytest.mark.slow
def test_tensorboard_mirrors_the_metrics_beside_a_profile(
    tiny, train_quietly, tmp_path, monkeypatch
):
    mirrored = []
    monkeypatch.setattr(TensorBoardLog, "write", lambda _, line: mirrored.append(line))
    config = tiny(train__steps=2, train__peak_flops=1e9)
    printed = train_quietly(
        config, tmp_path, tensorboard=True, profile=ProfileWindow(2, 1)
    )
    assert mirrored == records(tmp_path)
    assert "the profile is complete, up to step 2" in printed
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    for line in mirrored[:2]:
        assert line["utilisation"] == line["flops_per_second"] / 1e9 > 0
    assert "MFU" in printed
    assert list((tmp_path / "tensorboard").iterdir())
