"""State tracking: which rule and depth follow parity and the word problem of S_5.

All are trained on at most 64 tokens (128 where each permutation is spelled with four)
and read up to 1,024, where only a state that was really updated helps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from titans_eqx.evaluation.accuracy import AccuracySettings
from titans_eqx.evaluation.case import Case, Suite, changed_case
from titans_eqx.evaluation.models_on_tasks import AccuracyComparison, Picture


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is read, and by which models."""

    config: str
    recipe: tuple[str, ...] = ()  # beside the config; what the user sets wins over it
    changes: tuple[str, ...] = ()
    models: tuple[str, ...]
    after: str | None = None  # the task whose weights a model starts with


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
_ALL: Final = tuple(MODELS)
# Each permutation in as many tokens as one can be made of swaps, and rows of up to 32.
_SPELLED: Final = ("model.vocab_size=480", "data.task.tokens_each=4")
_LONGER: Final = (
    "data.seq_len=256",
    "data.lengths=[16, 32, 64, 128]",
    "train.eval_every=50",
)
_LEARNERS: Final = ("transformer", "delta, steps to 2")
TASKS: Final = {
    "parity": Task(config="parity.toml", models=_ALL),
    "s5": Task(config="s5.toml", models=_ALL),
    "s5 by swaps": Task(
        config="s5.toml", changes=("data.task.n_moved=2",), models=_ALL
    ),
    # Nothing is learned of all permutations unless those that move few points are
    # first.
    "s5 spelled, 2 moved": Task(
        config="s5.toml",
        recipe=(*_LONGER, "train.steps=400"),
        changes=(*_SPELLED, "data.task.n_moved=2"),
        models=_LEARNERS,
    ),
    "s5 spelled, 3 moved": Task(
        config="s5.toml",
        recipe=(*_LONGER, "train.steps=440"),
        changes=(*_SPELLED, "data.task.n_moved=3"),
        models=_LEARNERS,
        after="s5 spelled, 2 moved",
    ),
    "s5 spelled": Task(
        config="s5.toml",
        recipe=(*_LONGER, "train.steps=900"),
        changes=_SPELLED,
        models=_LEARNERS,
        after="s5 spelled, 3 moved",
    ),
}


def states(configs: Path, overrides: Sequence[str]) -> Suite:
    """Every task, with its models."""
    columns: dict[str, dict[str, str]] = {}
    cases: list[Case] = []
    for name, task in TASKS.items():
        for model in task.models:
            title = f"{model} on {name}"
            columns[title] = {"model": model, "task": name}
            case = changed_case(
                title,
                configs / "states" / task.config,
                (*task.recipe, *overrides),
                (*task.changes, *MODELS[model]),
                groups=(model, name),
                after=task.after and f"{model} on {task.after}",
            )
            cases.append(case)
    picture = Picture(panels=("task",), curves=("model",), x="length", mark=TRAINED_LEN)
    comparison = AccuracyComparison(settings=SETTINGS, columns=columns, picture=picture)
    return Suite(name="states", cases=tuple(cases), comparison=comparison)
