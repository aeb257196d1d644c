"""What the user says to every command of the benchmark."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import click

from scripts.benchmark.case import Case, Kind, read_setting
from scripts.benchmark.isolation import BenchmarkError
from titans_eqx.config import RunConfig

SHARED: Final = (
    click.option("--d-model", type=int, help="Width. [default: 256]"),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set one key, as in --set model.memory.depth=1; may be repeated.",
    ),
    click.option("--repeats", default=5, show_default=True, help="Timed runs of each."),
    click.option(
        "--json",
        "json_path",
        type=click.Path(allow_dash=True),
        help="File for the results as JSON; - prints JSON in place of the table.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user says to every command."""

    overrides: tuple[str, ...] = ()  # of single keys of the setting
    repeats: int = 5  # timed runs of each case

    def config(self, **keys: object) -> RunConfig:
        """The setting of one case.

        Args:
            **keys: Keys of the command itself, `model__n_layers` for `model.n_layers`;
                they win over the user's.
        """
        texts = (f"{key.replace('__', '.')}={value}" for key, value in keys.items())
        return read_setting([*self.overrides, *texts])

    def case(
        self,
        kind: Kind,
        length: int,
        batch: int = 1,
        *,
        pattern: str | None = None,
        **own: Any,
    ) -> Case:
        """A case with sequences of a given length.

        Args:
            kind: What is measured.
            length: Tokens in a sequence.
            batch: Sequences.
            pattern: As in `model.pattern`; None for that of the setting.
            **own: Other fields of the case.
        """
        keys = {} if pattern is None else {"model__pattern": pattern}
        config = self.config(data__seq_len=length, train__batch_size=batch, **keys)
        return Case(kind=kind, config=config, **own)


def several(
    flag: str, *default: Any, type: Any = int, help: str = "Tokens in a sequence"
) -> Callable[..., Any]:
    """An option that may be repeated; `--length` arrives as `lengths`."""
    return click.option(
        flag,
        f"{flag.removeprefix('--').replace('-', '_')}s",
        type=type,
        multiple=True,
        default=default,
        show_default=True,
        help=f"{help}; may be repeated.",
    )


def number(flag: str, default: int, help: str) -> Callable[..., Any]:
    """An option for a number that is at least one."""
    return click.option(flag, default=default, show_default=True, help=help)


def check_at_least_one(**values: Any) -> None:
    """Refuse numbers that cannot be used."""
    for name, value in values.items():
        if isinstance(value, int) and value < 1:
            flag = f"--{name.replace('_', '-')}"
            raise BenchmarkError(f"{flag} must be at least 1, got {value}.")
