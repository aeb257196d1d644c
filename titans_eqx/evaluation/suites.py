"""The suites by name: which configs are trained, and how they are compared."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from titans_eqx.config import load_config
from titans_eqx.errors import UserError
from titans_eqx.evaluation.case import Case, Suite, changed_case
from titans_eqx.evaluation.comparison import EvaluationComparison
from titans_eqx.evaluation.essays import essays
from titans_eqx.evaluation.mad import mad
from titans_eqx.evaluation.needle import NeedleSettings
from titans_eqx.evaluation.recall import RecallSettings
from titans_eqx.evaluation.rules import (
    RULES,
    TASKS,
    RuleComparison,
    memory_overrides,
)
from titans_eqx.evaluation.states import states
from titans_eqx.evaluation.text_models import (
    CEILING,
    FLOOR,
    VARIANTS,
    PairedComparison,
)
from titans_eqx.evaluation.zoology import zoology

SEEDS: Final = {  # with which each run is trained
    "recall": 1,
    "needle": 1,
    "ablation": 1,
    "rules": 1,
    "text": 3,
    "zoology": 3,
    "mad": 4,  # of which the first chooses among the settings
    "states": 3,
    "essays": 3,
}
SUITES: Final = tuple(SEEDS)
PATTERNS: Final = ("mac", "mag", "mal", "lmm", "transformer")
RECALL: Final = RecallSettings(lengths=(256, 1024, 4096), n_examples=32)
NEEDLE: Final = NeedleSettings(lengths=(1024, 2048, 4096, 8192, 16384), n_examples=20)
# The rows of the paper's ablation (table 5), then this package's own choices.
ABLATIONS: Final = {
    "as configured": (),
    "memory off": ("model.memory.off=true",),
    "linear memory": ("model.memory.depth=1",),
    "linear memory without norm": ("model.memory.depth=1", "model.memory.norm=false"),
    "delta rule": (
        "model.memory.rule=delta",
        "model.memory.depth=1",
        "model.memory.norm=false",
    ),
    "no convolution": ("model.memory.kernel_size=1",),
    "no momentum": ("model.memory.use_momentum=false",),
    "no decay": ("model.memory.decay=none",),
    "decay starts at 1e-4": ("model.memory.decay_start=1e-4",),
    "no persistent tokens": ("model.attention.n_persistent=0",),
    "full outer gradient": ("model.memory.surprise=full",),
    "learned initial memory": ("model.memory.initial_memory=learned",),
    "decay towards initial": ("model.memory.decay_towards=initial",),
    "gate mix": ("model.gate=mix",),
    "gate multiply": ("model.gate=multiply",),
    "no clipping": ("model.memory.clip=0",),
    "chunk 8": ("model.memory.chunk_len=8",),
    "chunk 32": ("model.memory.chunk_len=32",),
    "channel-wise decay": ("model.memory.decay=channel",),
}


def suite(
    name: str,
    configs: Path,
    overrides: Sequence[str] = (),
    *,
    seeds: int | None = None,
) -> Suite:
    """The runs of a suite: all with one seed, then all with the next.

    Args:
        name: One of `SUITES`.
        configs: Folder of the configs.
        overrides: Keys to set in all runs, as in `load_config`.
        seeds: How often each is trained; None for what `SEEDS` has.
    """
    once = _once(name, configs, overrides)
    n_seeds = seeds or SEEDS[name]
    cases = (replace(one, seed=seed) for seed in range(n_seeds) for one in once.cases)
    return replace(once, cases=tuple(cases))


def _once(name: str, configs: Path, overrides: Sequence[str]) -> Suite:
    """The runs of a suite with the first seed."""
    match name:
        case "ablation":
            cases = (
                changed_case(
                    title, configs / "ablation" / "mac.toml", overrides, changes
                )
                for title, changes in ABLATIONS.items()
            )
            comparison = EvaluationComparison(settings=RECALL)
            return Suite(name=name, cases=tuple(cases), comparison=comparison)
        case "recall" | "needle":
            cases = (
                Case(
                    name=pattern,
                    config=configs / name / f"{pattern}.toml",
                    overrides=tuple(overrides),
                )
                for pattern in PATTERNS
            )
            settings = RECALL if name == "recall" else NEEDLE
            comparison = EvaluationComparison(settings=settings)
            return Suite(name=name, cases=tuple(cases), comparison=comparison)
        case "rules":
            return _rules(configs, overrides)
        case "text":
            return _text(configs, overrides)
        case "zoology":
            return zoology(configs, overrides)
        case "mad":
            return mad(configs, overrides)
        case "states":
            return states(configs, overrides)
        case "essays":
            return essays(configs, overrides)
        case _:
            raise UserError(f"no suite {name!r}; there are {', '.join(SUITES)}.")


def _text(configs: Path, overrides: Sequence[str]) -> Suite:
    """Models with and without memory, and what there is to gain."""
    cases: list[Case] = []
    floor = load_config(configs / "text" / VARIANTS[FLOOR].config, overrides)
    for name, variant in VARIANTS.items():
        config = configs / "text" / variant.config
        changes = variant.overrides
        if name == CEILING:
            changes = (f"model.attention.window={floor.data.seq_len}",)
        groups = (variant.family,)
        cases.append(changed_case(name, config, overrides, changes, groups))
    comparison = PairedComparison(VARIANTS, floor.model.attention.window)
    return Suite(name="text", cases=tuple(cases), comparison=comparison)


def _rules(configs: Path, overrides: Sequence[str]) -> Suite:
    """Every rule on every task."""
    cases: list[Case] = []
    places: dict[str, tuple[str, str]] = {}
    for path in sorted((configs / RULES).glob("*.toml")):
        memory = memory_overrides(path)
        for task, (config, changes) in TASKS.items():
            title = f"{path.stem} on {task}"
            places[title] = path.stem, task
            case = Case(
                name=title,
                config=configs / config,
                # The user's last: a length of chunks, say, that all rules should have.
                overrides=(*changes, *memory, *overrides),
                groups=(path.stem, task),
            )
            cases.append(case)
    if not cases:
        raise UserError(f"there is no *.toml in {configs / RULES}; name --configs.")
    return Suite(name=RULES, cases=tuple(cases), comparison=RuleComparison(places))
