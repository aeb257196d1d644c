"""Models on the same rows: what one needs more than another, with an interval."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from titans_eqx.evaluation.row_bits import ALL, Place, RowBits
from titans_eqx.evaluation.table import paired_columns


@dataclass(frozen=True)
class Measured:
    """The runs of one variant."""

    by_seed: Mapping[int, RowBits]

    @cached_property
    def per_row(self) -> dict[Place, dict[int, np.ndarray]]:
        """Bits per byte of each row, by part and seed."""
        values: dict[Place, dict[int, np.ndarray]] = {}
        for seed, measured in self.by_seed.items():
            for part in measured.parts:
                values.setdefault(part.place, {})[seed] = part.per_row()
        return values

    def bits_per_byte(self, place: Place) -> float:
        """The mean over seeds."""
        return float(np.mean([rows.mean() for rows in self.per_row[place].values()]))

    def curve(self, length: int) -> list[tuple[int, float]]:
        """Bits per byte by the last position of each range, in rows of a length."""
        return [
            (place[3], self.bits_per_byte(place))
            for place in self.per_row
            if place[:2] == (length, ALL) and place[2:] != (0, length)
        ]

    def minus(self, reference: "Measured", place: Place) -> dict[str, Any]:
        """What it needs more than its reference, with a 95 % interval.

        The pairs are runs with the same seed. Where there is only one, they are its
        rows; that interval knows nothing of what another seed would do.
        """
        own, other = self.per_row[place], reference.per_row.get(place, {})
        seeds = [seed for seed in own if seed in other]
        if not seeds:
            return dict.fromkeys(("difference", "low", "high", "over", "pairs"))
        if len(seeds) == 1:
            over, before, after = "rows", other[seeds[0]], own[seeds[0]]
        else:
            over = "seeds"
            before, after = (
                np.array([one[seed].mean() for seed in seeds]) for one in (other, own)
            )
        columns = paired_columns(before, after)
        return columns | {"over": over, "pairs": len(before)}
