"""What is stored of one symbol's newest stretch of time, as the charts need it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from orchestration.board.rows import TABLES, Rows, no_rows
from tickhouse.contract.names import WINDOWS


class Reading(NamedTuple):
    """The stored numbers of one tick in one window; NaN where null is stored."""

    time: int
    """The tick's, in milliseconds."""
    price: float
    average: float
    deviation: float
    z_score: float


def _nothing_of(table: str) -> Rows:
    return no_rows(len(TABLES[table]))


@dataclass(frozen=True)
class Market:
    """One symbol. `token` differs whenever anything else does."""

    token: str
    prices: Rows = field(default_factory=lambda: _nothing_of("prices"))
    statistics: Rows = field(default_factory=lambda: _nothing_of("moving_stats"))
    """The averages of all windows, then their standard deviations."""
    higher: Rows = field(default_factory=lambda: _nothing_of("higher"))
    """Seconds until the next higher price."""
    lower: Rows = field(default_factory=lambda: _nothing_of("lower"))
    scores: dict[str, Rows] = field(default_factory=lambda: {window: no_rows(1) for window in WINDOWS})
    """z-scores by window."""

    @property
    def end(self) -> int:
        """The newest timestamp of all, in milliseconds; 0 without any."""
        parts = (self.prices, self.statistics, self.higher, self.lower, *self.scores.values())
        return max((int(rows.times[-1]) for rows in parts if len(rows.times)), default=0)

    @property
    def last_price(self) -> tuple[int, float] | None:
        """Time in milliseconds and price of the newest tick."""
        return (int(self.prices.times[-1]), float(self.prices.values[0, -1])) if len(self.prices.times) else None

    @property
    def ends(self) -> dict[str, int | None]:
        """Of each result, until when it is there, in milliseconds; None where there is none of it, or of a part."""
        parts = {
            "bands": [self.statistics],
            "z-scores": [*self.scores.values()],
            "higher/lower": [self.higher, self.lower],
        }
        return {
            result: min(int(rows.times[-1]) for rows in found) if all(len(rows.times) for rows in found) else None
            for result, found in parts.items()
        }

    def reading(self, window: str) -> Reading | None:
        """Of the newest tick of which price, statistics and z-score are all there; None when there is no such tick.

        Each of them is stored at another time: their newest rows are of different ticks, and contradict each other.
        """
        position, scores = list(WINDOWS).index(window), self.scores[window]
        parts = (self.prices, self.statistics, scores)
        common = np.intersect1d(np.intersect1d(self.prices.times, self.statistics.times), scores.times)
        if not len(common):
            return None
        # The first of that time: of a tick that came twice, it is the one that counts.
        price, statistics, score = (rows.values[:, np.searchsorted(rows.times, common[-1])] for rows in parts)
        return Reading(
            int(common[-1]),
            float(price[0]),
            float(statistics[position]),
            float(statistics[len(WINDOWS) + position]),
            float(score[0]),
        )
