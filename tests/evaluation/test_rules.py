"""Rules on tasks: real runs of a few steps."""

import dataclasses
import json
import time
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.random as jr
import pytest

from titans_eqx.config import load_config
from titans_eqx.errors import UserError
from titans_eqx.evaluation.rules import TASKS
from titans_eqx.evaluation.suites import suite
from titans_eqx.evaluation.sweep import sweep
from titans_eqx.models import build_model
from titans_eqx.training.report import TrainingDisplay

CONFIGS = Path(__file__).parents[2] / "configs"
COMPILING = 1000.0  # seconds of a clock that is set forward
TINY = """
[model]
pattern = "lmm"
d_model = 8
n_layers = 1
vocab_size = 32
[model.memory]
n_heads = 2
depth = 2
kernel_size = 1
[data]
source = "task"
seq_len = 16
task = { name = "mqar", vocab_size = 32, n_pairs = 2 }
[optimizer]
warmup_steps = 1
[train]
steps = 7
batch_size = 4
eval_every = 2
log_every = 3
"""
RULES = {
    "delta": 'rule = "delta"\ndepth = 1\nnorm = false\nchunk_len = 8',
    "wide": 'rule = "large_chunk"\ndepth = 1\nchunk_len = 4',
}
SWEPT = ("delta on mqar", "wide on mqar")


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """A folder of configs for tests: two rules, and one task that is small."""
    folder = tmp_path_factory.mktemp("configs")
    files = {f"rules/{name}.toml": f"[model.memory]\n{RULES[name]}" for name in RULES}
    for task, (config, _) in TASKS.items():
        files[config] = TINY if task == "mqar" else (CONFIGS / config).read_text()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return folder


@pytest.fixture(scope="module")
def swept(configs, tmp_path_factory):
    """The folder of a sweep over two runs, and its suite."""
    pytest.importorskip("matplotlib")
    out = tmp_path_factory.mktemp("rules")
    # A key that only one of the tasks has is refused by no other.
    chosen = suite("rules", configs, ["train.eval_examples=8", "data.task.n_pairs=3"])
    passed = [0.0]
    read_clock, show_phase = time.perf_counter, TrainingDisplay.phase

    @contextmanager
    def phase(self, name):
        with show_phase(self, name):
            yield
        passed[0] += COMPILING if name == "compiling" else 0

    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(time, "perf_counter", lambda: read_clock() + passed[0])
        patch.setattr(TrainingDisplay, "phase", phase)
        sweep(chosen, out, only=["mqar"], with_picture=True)
    assert passed[0] > 0
    return out, chosen


@pytest.fixture(scope="module")
def lines(swept):
    """The lines of the table by rule and task."""
    table = json.loads((swept[0] / "table.json").read_text())
    return {(line["rule"], line["task"]): line for line in table}


def metrics(out, name):
    path = out / name.replace(" ", "-") / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_suite_has_every_config_on_every_task():
    names = sorted(path.stem for path in (CONFIGS / "rules").glob("*.toml"))
    cases = suite("rules", CONFIGS).cases
    assert [case.name for case in cases] == [
        f"{name} on {task}" for name in names for task in TASKS
    ]
    others = set()
    for case in cases:
        name, _, task = case.name.partition(" on ")
        config = load_config(case.config, case.overrides)
        memory = load_config(CONFIGS / "rules" / f"{name}.toml").model.memory
        assert config.model.memory.rule == memory.rule
        for key in memory.model_fields_set:
            assert getattr(config.model.memory, key) == getattr(memory, key)
        rest = config.model_dump()
        del rest["model"]["memory"]
        others.add((task, json.dumps(rest)))
    assert len(others) == len(TASKS)


def test_the_configs_of_the_rules_differ_in_the_memory_alone():
    rest = []
    for path in (CONFIGS / "rules").glob("*.toml"):
        config = load_config(path).model_dump()
        del config["model"]["memory"]
        rest.append(config)
    assert all(one == rest[0] for one in rest)


def test_a_key_set_for_all_runs_wins_over_the_rules():
    for case in suite("rules", CONFIGS, ["model.memory.chunk_len=8"]).cases:
        assert load_config(case.config, case.overrides).model.memory.chunk_len == 8


def test_runs_are_chosen_by_name_by_rule_and_by_task():
    cases = suite("rules", CONFIGS).cases
    for only, count in ((["tnt on text"], 1), (["tnt"], 3), (["text"], len(cases) / 3)):
        chosen = [case.name for case in cases if case.is_in(only)]
        assert len(chosen) == count
        assert all(only[0] in name for name in chosen)


def test_a_folder_without_rules_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no \*.toml in .*rules; name --configs"):
        suite("rules", tmp_path)


def test_the_table_has_the_runs_swept(lines, swept):
    assert list(lines) == [("delta", "mqar"), ("wide", "mqar")]
    assert (swept[0] / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_sizes_are_those_of_real_arrays(lines, swept):
    _, chosen = swept
    config = load_config(chosen.cases[0].config, chosen.cases[0].overrides)
    model = build_model(config.model, key=jr.key(0))
    line = lines["delta", "mqar"]
    state = jax.tree.leaves(model.init_state())
    assert line["state bytes"] == sum(leaf.nbytes for leaf in state)
    assert line["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(model))


def test_scores_and_times_are_those_of_the_metrics(lines, swept):
    out, _ = swept
    times = {}
    for name in SWEPT:
        line, records = lines[tuple(name.split(" on "))], metrics(out, name)
        assert [one["step"] for one in records] == [1, 2, 3, 4, 6, 7, 7]
        assert line["equal tokens"] == records[-1]["eval_accuracy"]
        speeds = [one["tokens_per_second"] for one in records[:-1]]
        steps = [1, 1, 1, 1, 2, 1]  # of four rows of 16 tokens
        times[name] = [64 * n / one for n, one in zip(steps, speeds, strict=True)]
        seconds = sum(times[name])
        assert line["seconds"] == pytest.approx(seconds)
        # However long it took to compile them.
        assert line["seconds"] < COMPILING
        assert line["tokens/s"] == pytest.approx(7 * 64 / seconds)
    # The last evaluation on the way is after six steps, the fifth line.
    equal_time = min(sum(times[name][:5]) for name in SWEPT)
    for name in SWEPT:
        expected = None
        for i, record in enumerate(metrics(out, name)[:-1]):
            if "eval_accuracy" in record and sum(times[name][: i + 1]) <= equal_time:
                expected = record["eval_accuracy"]
        assert lines[tuple(name.split(" on "))]["equal time"] == expected


def test_what_is_finished_is_not_trained_again(lines, swept, capsys):
    out, chosen = swept
    first = dataclasses.replace(chosen, cases=chosen.cases[:1])
    alone = {"equal time": metrics(out, "delta on mqar")[4]["eval_accuracy"]}
    # Asked for again, or shown beside others that are asked for.
    for only, says_so in ([], True), (["needle"], False):
        with jax.numpy_dtype_promotion("standard"):
            sweep(first, out, only=only, with_picture=False)
        assert ("nothing to do" in capsys.readouterr().out) == says_so
        (line,) = json.loads((out / "table.json").read_text())
        assert line == lines["delta", "mqar"] | alone
