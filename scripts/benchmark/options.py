"""What the user says to every command of the benchmark."""

from dataclasses import dataclass

from scripts.benchmark.case import read_setting
from scripts.benchmark.isolation import BenchmarkError
from titans_eqx.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user says to every command."""

    overrides: tuple[str, ...] = ()  # of single keys of the setting
    repeats: int = 5  # timed runs of each case

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            BenchmarkError: If nothing would be measured.
        """
        check_at_least_one("--repeats", self.repeats)

    def config(self, **keys: object) -> RunConfig:
        """The setting of one case.

        Args:
            **keys: Keys of the command itself, `model__n_layers` for `model.n_layers`;
                they win over the user's.

        Returns:
            The checked configuration.
        """
        texts = (f"{key.replace('__', '.')}={value}" for key, value in keys.items())
        return read_setting([*self.overrides, *texts])

    def sized(self, length: int, batch: int, **keys: object) -> RunConfig:
        """The setting of one case with sequences of a given length.

        Args:
            length: Tokens in a sequence.
            batch: Sequences.
            **keys: As for `config`.

        Returns:
            The checked configuration.
        """
        return self.config(data__seq_len=length, train__batch_size=batch, **keys)


def check_at_least_one(option: str, value: int) -> None:
    """Refuse a number that cannot be used.

    Args:
        option: Name of the option.
        value: What the user gave.

    Raises:
        BenchmarkError: If it is less than one.
    """
    if value < 1:
        raise BenchmarkError(f"{option} must be at least 1, got {value}.")
