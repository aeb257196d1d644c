"""The recall-memory plane of the zoology project: accuracy against bytes of state.

MQAR as its experiments train it (arXiv 2312.04927, 2402.18668): a mix of sizes, tested
with up to four times the longest trained length and pairs.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final

from titans_eqx.evaluation.case import Suite, changed_case
from titans_eqx.evaluation.models_on_tasks import AccuracyComparison, Picture
from titans_eqx.evaluation.recall import RecallSettings

MODELS: Final = ("lmm", "mac", "mag", "delta", "transformer")
WIDTHS: Final = (64, 128)
# Tokens and pairs; the longest that are trained are 256 and 64.
SIZES: Final = (
    (64, 4),
    (64, 8),
    (64, 16),
    (128, 32),
    (256, 64),
    (512, 128),
    (1024, 256),
)
SETTINGS: Final = RecallSettings(sizes=SIZES, n_examples=256)


def zoology(configs: Path, overrides: Sequence[str]) -> Suite:
    """Every model in every width."""
    runs = {
        f"{model} {width}": {"model": model, "width": width}
        for width, model in product(WIDTHS, MODELS)
    }
    cases = (
        changed_case(
            name,
            configs / "zoology" / f"{run['model']}.toml",
            overrides,
            (f"model.d_model={run['width']}",),
            groups=(str(run["model"]), f"width {run['width']}"),
        )
        for name, run in runs.items()
    )
    picture = Picture(
        panels=("length", "pairs"), curves=("model",), x="state bytes", min_length=256
    )
    comparison = AccuracyComparison(settings=SETTINGS, columns=runs, picture=picture)
    return Suite(name="zoology", cases=tuple(cases), comparison=comparison)
