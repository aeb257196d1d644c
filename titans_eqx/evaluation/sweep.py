"""Several runs, trained and measured one after the other, in one table.

What is finished is not done again, so a sweep that was interrupted goes on with the
same command.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click

from titans_eqx.checkpoint.load_model import load_model
from titans_eqx.config import RunConfig, load_config
from titans_eqx.errors import UserError
from titans_eqx.evaluation.comparison import (
    AbstractComparison,
    EvaluationComparison,
    Run,
    label,
)
from titans_eqx.evaluation.evaluate import PICTURE
from titans_eqx.evaluation.needle import NeedleSettings
from titans_eqx.evaluation.plots import require_plots
from titans_eqx.evaluation.recall import RecallSettings
from titans_eqx.evaluation.report import show, write_json
from titans_eqx.evaluation.rules import (
    RULES,
    TASKS,
    RuleComparison,
    memory_overrides,
)
from titans_eqx.evaluation.text_models import CEILING, VARIANTS, PairedComparison
from titans_eqx.files import probe_output
from titans_eqx.training import train
from titans_eqx.training.divergence import DivergedError

TABLE: Final = "table.json"
PATTERNS: Final = ("mac", "mag", "mal", "lmm", "transformer")
RECALL: Final = RecallSettings(lengths=(256, 1024, 4096), n_examples=32)
SEEDS: Final = {"text": 3}  # of each run; of other suites 1
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


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run of a sweep."""

    name: str
    config: Path
    overrides: tuple[str, ...]
    groups: tuple[str, ...] = ()  # of runs that it is one of
    # Added to the seeds of the weights and of the order of the rows, so that all runs
    # of a suite have the same ones.
    seed: int = 0

    @property
    def label(self) -> str:
        """Its name and its seed."""
        return label(self.name, self.seed)

    def load(self) -> RunConfig:
        """The configuration of the run.

        Raises:
            UserError: If the config or a key that is set cannot be used.
        """
        config = load_config(self.config, self.overrides)
        if self.seed == 0:
            return config
        seeds = (
            f"train.seed={config.train.seed + self.seed}",
            f"data.seed={config.data.seed + self.seed}",
        )
        return load_config(self.config, (*self.overrides, *seeds))

    def is_in(self, only: Collection[str]) -> bool:
        """Whether it is asked for, by its name or with a group; all are by no name."""
        return not only or any(name in only for name in (self.name, *self.groups))


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Runs in order, and how they are compared."""

    cases: tuple[Case, ...]
    comparison: AbstractComparison


def suite(
    name: str,
    configs: Path,
    overrides: Sequence[str] = (),
    *,
    seeds: int | None = None,
) -> Suite:
    """The runs of a suite: all with one seed, then all with the next.

    Args:
        name: recall, needle, ablation, rules or text.
        configs: Folder of the configs.
        overrides: Keys to set in all runs, as in `load_config`.
        seeds: How often each is trained; None for what `SEEDS` has.
    """
    once = _once(name, configs, overrides)
    n_seeds = seeds or SEEDS.get(name, 1)
    cases = (replace(one, seed=seed) for seed in range(n_seeds) for one in once.cases)
    return replace(once, cases=tuple(cases))


def _once(name: str, configs: Path, overrides: Sequence[str]) -> Suite:
    """The runs of a suite with the first seed."""
    match name:
        case "ablation":
            cases = (
                Case(
                    name=title,
                    config=configs / "recall" / "mac.toml",
                    # Last, or a key set for all runs could undo what a run is about.
                    overrides=(*overrides, *changes),
                )
                for title, changes in ABLATIONS.items()
            )
            return Suite(cases=tuple(cases), comparison=EvaluationComparison(RECALL))
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
            return Suite(cases=tuple(cases), comparison=EvaluationComparison(settings))
        case "rules":
            return _rules(configs, overrides)
        case "text":
            return _text(configs, overrides)
        case _:
            raise UserError(
                f"no suite {name!r}; there are recall, needle, ablation, rules, text."
            )


def _text(configs: Path, overrides: Sequence[str]) -> Suite:
    """Models with and without memory, and what there is to gain."""
    cases: list[Case] = []
    for name, variant in VARIANTS.items():
        config = configs / "text" / variant.config
        changes = variant.overrides
        if name == CEILING:
            length = load_config(config, overrides).data.seq_len
            changes = (f"model.attention.window={length}",)
        case = Case(
            name=name,
            config=config,
            # Last, or a key set for all runs could undo what a run is about.
            overrides=(*overrides, *changes),
            groups=(variant.family,),
        )
        cases.append(case)
    return Suite(cases=tuple(cases), comparison=PairedComparison(VARIANTS))


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
    return Suite(cases=tuple(cases), comparison=RuleComparison(places))


def sweep(
    suite: Suite, out: Path, *, only: Collection[str] = (), with_picture: bool
) -> None:
    """Train and measure runs, and write `table.json` and `picture.png`.

    Args:
        suite: The runs.
        out: Folder with a folder for each run.
        only: Names of runs and groups to do; empty for all. What earlier sweeps
            finished of the others is shown too.
        with_picture: Whether to draw.

    Raises:
        UserError: If a config, a run or a folder cannot be used.
    """
    if with_picture:
        require_plots()
    for name in (TABLE, PICTURE):
        probe_output(out / name, "--out")
    comparison, title = suite.comparison, f"sweep in {out}"
    runs: list[Run] = []
    for case in suite.cases:
        is_wanted, folder = case.is_in(only), out / case.label.replace(" ", "-")
        # What is set may be a key of a task that others do not have.
        if not is_wanted and not folder.exists():
            continue
        config = case.load()
        run = Run(name=case.name, seed=case.seed, config=config, folder=folder)
        is_measured = comparison.is_measured(run)
        if not is_wanted and not is_measured:
            continue
        try:
            if train(config, folder) < config.train.steps:
                return  # interrupted; the run has said so
        except DivergedError as error:
            click.echo(f"{case.label} is left out: {error}")
            continue
        _check_same(config, load_model(folder).config, folder)
        if not is_measured:
            comparison.measure(run, with_picture=with_picture)
        runs.append(run)
        write_json(comparison.table(runs), out / TABLE)
        if with_picture:
            comparison.plot(runs, title, out / PICTURE)
    if runs:
        show(comparison.summary(comparison.table(runs)), title)


def _check_same(config: RunConfig, trained: RunConfig, run_dir: Path) -> None:
    """Refuse to show a finished run under settings that it was not trained with."""
    for name in ("model", "data", "optimizer", "train"):
        if getattr(config, name) != getattr(trained, name):
            raise UserError(
                f"{run_dir} was finished with other values in [{name}]; name another "
                "--out, or remove that folder."
            )
