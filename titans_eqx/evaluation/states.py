"""State tracking: which rule and depth follow parity and the word problem of S_5.

All are trained on at most 64 tokens and read up to sixteen times as many, where only a
state that was really updated helps.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final

from titans_eqx.evaluation.accuracy import AccuracySettings
from titans_eqx.evaluation.case import Suite, changed_case
from titans_eqx.evaluation.models_on_tasks import AccuracyComparison, Picture

# The configs, and what a task changes in one.
TASKS: Final = {
    "parity": ("parity.toml", ()),
    "s5": ("s5.toml", ()),
    "s5 by swaps": ("s5.toml", ("data.task.n_moved=2",)),
}
TRAINED_LEN: Final = 64
SETTINGS: Final = AccuracySettings(lengths=(64, 256, 1024), n_examples=256)
_LINEAR: Final = ("model.memory.depth=1", "model.memory.norm=false")
# A step above one mirrors what is stored under a key, as parity and swaps need.
_MIRRORED: Final = (
    "model.memory.rule=delta",
    *_LINEAR,
    "model.memory.use_momentum=false",
    "model.memory.max_learning_rate=2.0",
)
# Gradients at the weights of the last chunk's end make what a chunk writes linear in
# its tokens, however deep the memory; with chunks of one token nothing is left out.
_EACH: Final = ("model.memory.chunk_len=1",)
MODELS: Final = {
    "transformer": ("model.pattern=transformer",),
    "delta": ("model.memory.rule=delta", *_LINEAR),
    "delta, steps to 2": (*_MIRRORED, "model.memory.error_after_decay=true"),
    "delta, steps to 2, no decay": (*_MIRRORED, "model.memory.decay=none"),
    "lmm, depth 1": ("model.memory.depth=1",),
    "lmm, depth 2": (),
    "lmm, depth 3": ("model.memory.depth=3",),
    "lmm, depth 1, each token": ("model.memory.depth=1", *_EACH),
    "lmm, depth 2, each token": _EACH,
    "mac, depth 2": ("model.pattern=mac",),
}


def states(configs: Path, overrides: Sequence[str]) -> Suite:
    """Every model on every task."""
    columns = {
        f"{model} on {task}": {"model": model, "task": task}
        for task, model in product(TASKS, MODELS)
    }
    cases = []
    for name, run in columns.items():
        config, changes = TASKS[run["task"]]
        changes = (*changes, *MODELS[run["model"]])
        groups = (run["model"], run["task"])
        path = configs / "states" / config
        cases.append(changed_case(name, path, overrides, changes, groups=groups))
    picture = Picture(panels=("task",), curves=("model",), x="length", mark=TRAINED_LEN)
    comparison = AccuracyComparison(settings=SETTINGS, columns=columns, picture=picture)
    return Suite(name="states", cases=tuple(cases), comparison=comparison)
