"""MAD: six small tasks, each with a grid of settings of which the best is kept.

The weight decays, the sizes of the tasks and the width are those of Poli et al. (2024),
and there are as many learning rates; how long is trained is in the configs.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final

from titans_eqx.evaluation.accuracy import AccuracySettings
from titans_eqx.evaluation.case import Case, Suite, changed_case
from titans_eqx.evaluation.models_on_tasks import AccuracyComparison, Picture

TASKS: Final = (
    "compression",
    "in_context_recall",
    "noisy_recall",
    "fuzzy_recall",
    "selective_copying",
    "memorization",
)
MODELS: Final = {"lmm": (), "transformer": ("model.pattern=transformer",)}
# Of AdamW, for what Muon does not train; MAD trains all by AdamW, with 1e-4 to 1e-3.
LEARNING_RATES: Final = (1e-3, 2e-3, 4e-3)
WEIGHT_DECAYS: Final = (0.0, 0.1)
SETTINGS: Final = AccuracySettings(n_examples=1280, batch_size=32)
# Titans, NeurIPS version (arXiv 2501.00663), in the order of the tasks; one figure for
# in-context recall with and without noise.
PUBLISHED: Final = {
    "paper LMM": (0.496, 1.0, 1.0, 0.497, 0.994, 0.835),
    "paper attention": (0.494, 1.0, 1.0, 0.482, 0.959, 0.838),
}


def mad(configs: Path, overrides: Sequence[str]) -> Suite:
    """Every model on every task with every setting; further seeds of the best alone."""
    columns: dict[str, dict[str, str | float]] = {}
    cases: list[Case] = []
    grid = product(TASKS, MODELS.items(), LEARNING_RATES, WEIGHT_DECAYS)
    for task, (model, changes), rate, decay in grid:
        name = f"{model} on {task} rate {rate:g} decay {decay:g}"
        columns[name] = {
            "model": model,
            "task": task,
            "learning rate": rate,
            "weight decay": decay,
        }
        case = changed_case(
            name,
            configs / "mad" / f"{task}.toml",
            overrides,
            (
                *changes,
                f"optimizer.learning_rate={rate}",
                f"optimizer.weight_decay={decay}",
            ),
            groups=(model, task, f"{model} on {task}"),
        )
        cases.append(case)
    published = [
        {"task": task} | {name: figures[place] for name, figures in PUBLISHED.items()}
        for place, task in enumerate(TASKS)
    ]
    comparison = AccuracyComparison(
        settings=SETTINGS,
        columns=columns,
        picture=Picture(
            panels=("task",), curves=("model", "weight decay"), x="learning rate"
        ),
        grid=("learning rate", "weight decay"),
        published=published,
    )
    return Suite(
        name="mad",
        cases=tuple(cases),
        comparison=comparison,
        is_worth=lambda run, done: run.seed == 0 or comparison.is_best(run, done),
    )
