"""What a sweep trains: cases, and the suite that they make."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from titans_eqx.config import RunConfig, load_config
from titans_eqx.evaluation.comparison import AbstractComparison, Run, label


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run of a sweep."""

    name: str
    config: Path
    overrides: tuple[str, ...]
    without_effect: tuple[str, ...] = ()  # those that the run itself sets otherwise
    groups: tuple[str, ...] = ()  # of runs that it is one of
    after: str | None = None  # name of the run whose weights it starts with
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


def changed_case(
    name: str,
    config: Path,
    overrides: Sequence[str],
    changes: Sequence[str],
    groups: tuple[str, ...] = (),
    after: str | None = None,
) -> Case:
    """A run that is about what it changes in a config.

    Args:
        name: Of the run.
        config: The file.
        overrides: Keys that are set in all runs. They come before the changes, or they
            could undo what the run is about; those that have no effect so are noted.
        changes: Keys that are set in this one.
        groups: Of runs that it is one of.
        after: Name of the run whose weights it starts with, if it does.
    """
    changed = {_key(change): change for change in changes}
    return Case(
        name=name,
        config=config,
        overrides=(*overrides, *changes),
        without_effect=tuple(
            one for one in overrides if changed.get(_key(one), one) != one
        ),
        groups=groups,
        after=after,
    )


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Runs in order, and how they are compared."""

    name: str
    cases: tuple[Case, ...]  # each behind the one whose weights it starts with
    comparison: AbstractComparison
    # Whether to train a run at all, from those measured before it.
    is_worth: Callable[[Run, Sequence[Run]], bool] = lambda run, measured: True

    def asked_for(self, only: Collection[str]) -> list[Case]:
        """What is asked for, and whose weights it starts with.

        Args:
            only: Names of runs and groups; empty for all.
        """
        names = {case.name for case in self.cases if case.is_in(only)}
        for case in reversed(self.cases):
            if case.name in names and case.after is not None:
                names.add(case.after)
        return [case for case in self.cases if case.name in names]
