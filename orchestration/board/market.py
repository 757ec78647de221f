"""What is stored of one symbol's newest stretch of time, as the charts need it.

Belongs here: the form of it. Does not belong here: reading it (`watcher`) or drawing it (`figures`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestration.board.rows import TABLES, Rows, no_rows
from spark_jobs.contract import WINDOWS


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
