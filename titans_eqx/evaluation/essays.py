"""Single needles in real text, after RULER: a number and a UUID in essays.

A needle counts as found if every byte of it is right; all depths count alike.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final

from titans_eqx.evaluation.case import Suite, changed_case
from titans_eqx.evaluation.models_on_tasks import AccuracyComparison, Picture
from titans_eqx.evaluation.needle import NeedleSettings

NEEDLES: Final = ("number", "uuid")
MODELS: Final = ("mac", "lmm", "transformer")
SETTINGS: Final = NeedleSettings(
    lengths=(2048, 4096, 8192, 16384), n_examples=20, batch_size=4
)
# Titans (arXiv 2501.00663), MAC, by its lengths of 2, 4, 8 and 16 thousand tokens.
PUBLISHED: Final = {
    "number": {2048: 0.996, 4096: 0.982, 8192: 0.976, 16384: 0.974},
    "uuid": {2048: 0.982, 4096: 0.982, 8192: 0.956, 16384: 0.952},
}


def essays(configs: Path, overrides: Sequence[str]) -> Suite:
    """Every model with every needle."""
    columns = {
        f"{model} on {needle}": {"model": model, "task": needle}
        for needle, model in product(NEEDLES, MODELS)
    }
    cases = (
        changed_case(
            name,
            configs / "essays" / f"{run['model']}.toml",
            overrides,
            (f"data.task.needle={run['task']}",),
            groups=(run["model"], run["task"]),
        )
        for name, run in columns.items()
    )
    published = [
        {"task": task, "length": length, "paper MAC": found}
        for task, by_length in PUBLISHED.items()
        for length, found in by_length.items()
    ]
    comparison = AccuracyComparison(
        settings=SETTINGS,
        columns=columns,
        picture=Picture(panels=("task",), curves=("model",), x="length"),
        published=published,
    )
    return Suite(name="essays", cases=tuple(cases), comparison=comparison)
