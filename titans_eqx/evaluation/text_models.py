"""Does the memory pay on text? Models on the same rows, each beside its reference.

What a memory brings is what the same model without it lacks. What there is to bring is
shown by attention over the whole row (the ceiling) beside attention over a window.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import equinox as eqx

from titans_eqx.checkpoint.load_model import load_model
from titans_eqx.errors import UserError
from titans_eqx.evaluation.comparison import AbstractComparison, Run
from titans_eqx.evaluation.paired import Measured
from titans_eqx.evaluation.plots import Panel, plot_panels
from titans_eqx.evaluation.repeats import FAR
from titans_eqx.evaluation.report import REPORT, write_json
from titans_eqx.evaluation.row_bits import (
    ALL,
    Place,
    RowBits,
    measure_row_bits,
    read_row_bits,
)
from titans_eqx.evaluation.scorer import StreamScorer, show_progress
from titans_eqx.evaluation.table import Table
from titans_eqx.nn.tree import n_elements

BATCH_SIZE: Final = 8  # rows read at once
CONTROLS: Final = "controls"
FLOOR: Final = "window"
CEILING: Final = "full attention"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A model among those compared."""

    family: str  # those drawn together
    config: str  # in the folder text of the configs
    overrides: tuple[str, ...] = ()
    reference: str | None = None  # the variant that it should be better than


FAMILIES: Final = ("mag", "lmm", "mac", "mal")
# What each of a family's models changes in the family's config, whose rule is delta.
_MODELS: Final[Mapping[str, tuple[str, ...]]] = {
    "off": ("model.memory.off=true",),
    "delta": (),
    "titans": (
        "model.memory.rule=titans",
        "model.memory.depth=2",
        "model.memory.degree=1",
        "model.memory.expansion=2",
        "model.memory.norm=true",
        "model.memory.residual=true",
        "model.memory.use_momentum=true",
        "model.memory.initial_output=random",
        "model.memory.chunk_len=16",
    ),
}
# What the keys of the recipe bring: mag.toml with one of them (or two that go together)
# at another value.
_RECIPE: Final[Mapping[str, tuple[str, ...]]] = {
    "own target": ("model.memory.target=same",),
    "random start": ("model.memory.initial_output=random",),
    "residual": ("model.memory.residual=true",),
    "random queries": ("model.memory.query_start=random",),
    "own keys": ("model.attention.key_delay=0",),
    "own token": ("model.memory.key_start=token",),
    "linear features": ("model.memory.degree=1",),
    "one head": ("model.memory.degree=1", "model.memory.n_heads=1"),
    "plain monomials": ("model.memory.feature_scale=0",),
    "silu": ("model.memory.value_activation=silu",),
    "random gate": ("model.memory.gate_start=random",),
    "normed reads": ("model.memory.value_norm=false", "model.memory.read_norm=true"),
    "momentum": ("model.memory.use_momentum=true",),
    "faster decay": ("model.memory.decay_start=1e-2",),
    "decay spread": ("model.memory.decay_start=[1e-4, 1e-2]",),
    "error after decay": ("model.memory.error_after_decay=true",),
    "read before": ("model.memory.read=before",),
    "adamw": ("optimizer.name=adamw",),
}
VARIANTS: Final[Mapping[str, Variant]] = (
    {
        FLOOR: Variant(family=CONTROLS, config="transformer.toml"),
        # As long as the trained rows; the suite knows how long these are.
        CEILING: Variant(family=CONTROLS, config="transformer.toml", reference=FLOOR),
    }
    | {
        f"{family} {name}": Variant(
            family=family,
            config=f"{family}.toml",
            overrides=overrides,
            reference=None if name == "off" else f"{family} off",
        )
        for family in FAMILIES
        for name, overrides in _MODELS.items()
    }
    | {
        name: Variant(
            family="recipe",
            config="mag.toml",
            overrides=overrides,
            reference="mag delta",
        )
        for name, overrides in _RECIPE.items()
    }
)


@dataclass(frozen=True)
class PairedComparison(AbstractComparison):
    """By bits per byte on the same rows."""

    variants: Mapping[str, Variant]
    window: int  # tokens to a near repeat, whatever a model attends to

    def is_measured(self, run: Run) -> bool:
        """See `AbstractComparison.is_measured`.

        Raises:
            UserError: If there is something else, or other repeats were near ones.
        """
        path = _report(run)
        if not path.exists():
            return False
        if (window := read_row_bits(path).window) != self.window:
            raise UserError(
                f"{path} counts repeats as near up to {window} tokens, this sweep up "
                f"to {self.window}; remove it to measure again."
            )
        return True

    def measure(self, run: Run, *, with_picture: bool) -> None:
        """See `AbstractComparison.measure`."""
        model = load_model(run.folder).model
        parameters = n_elements(eqx.filter(model, eqx.is_array))
        click.echo(f"measuring {run.label}, {parameters:,} parameters")
        scorer = show_progress(StreamScorer(model, BATCH_SIZE))
        row_bits = measure_row_bits(scorer, run.config.data, parameters, self.window)
        write_json(row_bits.model_dump(), _report(run))

    def table(self, runs: Sequence[Run]) -> Table:
        """See `AbstractComparison.table`: part by part, all variants below each other.

        The last column is the share that a memory recovers of what the ceiling gains
        in the same part; none where that gain's interval does not exclude zero.

        Raises:
            UserError: If runs were measured on different texts or repeats.
        """
        measured = _read(runs)
        table: Table = []
        for place in next(iter(measured.values())).per_row:
            length, context, start, stop = place
            pairs = dict(self._pairs(measured, place))
            for name, one in measured.items():
                reference = self.variants[name].reference
                table.append(
                    {
                        "variant": name,
                        "reference": reference,
                        "rows": length,
                        "context": context,
                        "from": start,
                        "to": stop,
                        "bits per byte": one.bits_per_byte(place),
                    }
                    | pairs[name]
                    | {
                        "share of ceiling": self._share(name, pairs),
                        "seeds": len(one.by_seed),
                        "parameters": next(iter(one.by_seed.values())).parameters,
                    }
                )
        return table

    def summary(self, table: Table) -> Table:
        """See `AbstractComparison.summary`: whole rows, and far repeats in them."""
        return [
            {
                "variant": line["variant"],
                "part": f"{line['context']} of {line['rows']:,}",
                "bits per byte": line["bits per byte"],
                "difference": _signed(line["difference"]),
                "95 % interval": f"{_signed(line['low'])} {_signed(line['high'])}",
                "over": line["over"],
                "share of ceiling": line["share of ceiling"],
            }
            for line in table
            if line["context"] in (ALL, FAR)
            and (line["from"], line["to"]) == (0, line["rows"])
        ]

    def plot(self, runs: Sequence[Run], title: str, path: Path) -> None:
        """See `AbstractComparison.plot`: the longest rows by position, by family."""
        measured = _read(runs)
        longest = max(length for length, *_ in next(iter(measured.values())).per_row)
        families = {self.variants[name].family: None for name in measured}
        if len(families) > 1:
            families.pop(CONTROLS, None)  # are in each of the others
        panels = []
        for family in families:
            panel = Panel(
                title=family,
                y_label="bits per byte",
                are_shares=False,
                mark=runs[0].config.data.seq_len,
            )
            for name, one in measured.items():
                if self.variants[name].family in (family, CONTROLS):
                    # Its part of the name is above the panel.
                    label = name.removeprefix(f"{family} ")
                    panel.curves[label] = one.curve(longest)
            panels.append(panel)
        plot_panels(panels, "position", title, path, is_log=True)

    def _pairs(
        self, measured: Mapping[str, Measured], place: Place
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each variant against its reference, if that was measured too."""
        nothing = Measured({})
        for name, one in measured.items():
            reference = self.variants[name].reference
            yield name, one.minus(measured.get(reference or "", nothing), place)

    def _share(self, name: str, pairs: Mapping[str, dict[str, Any]]) -> float | None:
        difference, ceiling = pairs[name]["difference"], pairs.get(CEILING)
        if difference is None or self.variants[name].family == CONTROLS:
            return None
        if ceiling is None or ceiling["difference"] is None or ceiling["high"] >= 0:
            return None
        return difference / ceiling["difference"]


def _report(run: Run) -> Path:
    steps = run.config.train.steps
    return run.folder / "evaluation" / f"rows-at-{steps}" / REPORT


def _read(runs: Sequence[Run]) -> dict[str, Measured]:
    """What was measured of each variant."""
    by_variant: dict[str, dict[int, RowBits]] = {}
    first: tuple[RowBits, Run] | None = None
    for run in runs:
        row_bits = read_row_bits(_report(run))
        first_bits, first_run = first = first or (row_bits, run)
        if row_bits.text != first_bits.text:
            raise UserError(
                f"{first_run.folder} and {run.folder} were measured on different "
                "texts; remove one of them to train it again."
            )
        if row_bits.repeat_len != first_bits.repeat_len:
            raise UserError(
                f"a repeat has {first_bits.repeat_len} tokens in {_report(first_run)}, "
                f"{row_bits.repeat_len} in {_report(run)}; remove one of them to "
                "measure it again."
            )
        by_variant.setdefault(run.name, {})[run.seed] = row_bits
    return {name: Measured(by_seed) for name, by_seed in by_variant.items()}


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"
