"""One declaration for each table of what must hold for it: every check of a table follows from it."""

from __future__ import annotations

from typing import NamedTuple


class Share(NamedTuple):
    """A share of a stream's messages that must stay small."""

    check: str
    counter: str
    """Of the stream's heartbeat; the whole is its `input_rows`."""
    limit: float
    text: str


class Rules(NamedTuple):
    """What must hold for a table, beside its schema and that its stream is alive and keeps up."""

    identity: tuple[str, ...]
    """No two rows have the same values in these columns."""
    fresh: bool = True
    """Whether rows come as long as ticks do."""
    share: Share | None = None
    gaps: bool = False
    """Whether the times of its rows show where ticks are missing."""
    scores: bool = False
    """Whether it has z-scores, which must be finite and centred."""
    partitions: bool = False
    """Whether its rows show on which partition of the topic a symbol is: it must be one."""
    reasons: bool = False
    """Whether it has the reasons for rejections, none of which may be a failure of the accept rule itself."""


_COORDINATES = ("topic", "partition", "offset")
_TICK = ("symbol", "timestamp")

RULES: dict[str, Rules] = {
    "prices": Rules(_COORDINATES, gaps=True, partitions=True),
    "rejects": Rules(
        _COORDINATES,
        fresh=False,
        share=Share("rejected_share", "rejects", 0.05, "of the messages are rejected"),
        reasons=True,
    ),
    "moving_stats": Rules(_TICK, share=Share("late_share", "late", 0.05, "of the ticks are late")),
    "zscores": Rules(_TICK, scores=True),
    "higher": Rules(_TICK),
    "lower": Rules(_TICK),
}
LAG_LIMIT = 10_000
"""Messages that may wait for a stream; a catch-up has more, and says so while it lasts."""
FRESH_SECONDS = 180.0
"""How long a table may be without new rows while ticks come: results are final after at most half a minute."""
FOREIGN_SECONDS = 3_600.0
"""For how long it is told of a foreign message on a topic of results."""
GAP_STEPS = 100
"""How many polling steps may lie between two ticks of a symbol: ten seconds at ten ticks a second."""
RECENT_SECONDS = 3_600.0
"""How much of a table, back from its newest row, is read by a check."""
COMPARED_ROWS = 20_000
"""How many of these, the newest, are compared with their documents in each collection."""


def centre_bound(window_seconds: float, stretch_seconds: float) -> float:
    """How far from zero the mean of a window's z-scores may be over a stretch of time, in standard deviations.

    z-scores follow one another as long as their window is, so a stretch holds about stretch / window independent ones,
    each with a deviation of about 1.4 for prices that wander. The bound is three deviations of their mean, and 0.3 for
    a market that goes one way; a steady rise, the most there can be for long, has 1.73.
    """
    independent = max(1.0, stretch_seconds / window_seconds)
    return float(min(2.5, 0.3 + 3 * 1.4 / independent**0.5))
