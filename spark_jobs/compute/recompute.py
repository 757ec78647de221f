"""What the streams publish, computed in a batch from one symbol's ticks: the same to the last bit.

Results depend on the ticks alone, not on how they arrived in micro-batches (`sliding` says why), so there is nothing
that a batch could do differently. A stretch needs the ticks of an hour before it, and of 20 s after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from spark_jobs.compute import first_passage, ordering, sliding, zscore_join
from tickhouse.contract.arrays import Floats, Integers
from tickhouse.contract.names import PASSAGE_HORIZON_MS, WINDOWS

WARM_UP_MS = max(WINDOWS.values())
"""How far before a stretch its results reach, in milliseconds."""
TICKS_AT_ONCE = 40_000
"""An hour of ten a second: what bounds the memory of intermediate results."""


class Ticks(NamedTuple):
    """Distinct ticks of one symbol, both arrays of shape (n,)."""

    timestamps: Integers
    """Milliseconds, strictly increasing."""
    prices: Integers
    """In 1e-8 units."""

    def between(self, after: int, until: int) -> Ticks:
        """Those with a timestamp in (after, until], in milliseconds."""
        begin, end = np.searchsorted(self.timestamps, (after, until), side="right").tolist()
        return Ticks(self.timestamps[begin:end], self.prices[begin:end])


class Scored(NamedTuple):
    """Statistics and z-scores of n ticks: `timestamps` (n,), `z_scores` (windows, n) with NaN where there is none."""

    timestamps: Integers
    statistics: sliding.Statistics
    z_scores: Floats


class Waits(NamedTuple):
    """Time to the next higher and to the next lower price, for each tick where that is certain."""

    higher: first_passage.Answers
    lower: first_passage.Answers


def on_time(timestamps: Integers, prices: Integers, lateness_ms: int) -> Ticks:
    """The ticks that the streams take, of ticks in offset order (milliseconds and 1e-8 units, both of shape (n,)).

    Late ones are left out, and of those with one timestamp all but the first. For a stretch of time it is enough to
    know the ticks from there on: only a later timestamp makes a tick late.
    """
    none_known = np.zeros(0, dtype=np.int64)
    fresh = ordering.admit(timestamps, none_known, ordering.BEFORE_ALL, lateness_ms).fresh
    return distinct(timestamps[fresh], prices[fresh])


def distinct(timestamps: Integers, prices: Integers) -> Ticks:
    """All ticks, late ones included, of ticks in offset order; of those with one timestamp the first."""
    times, first = np.unique(timestamps, return_index=True)
    return Ticks(times, prices[first])


def scored(ticks: Ticks, after: int, until: int) -> Iterator[Scored]:
    """Statistics and z-scores of the ticks in (after, until], in time order, some at a time.

    They are those that the streams publish where `ticks` has all from `WARM_UP_MS` before `after` up to `until`.
    """
    index = sliding.empty_index()
    history = _Memory()
    for part in (ticks.between(after - WARM_UP_MS, after), ticks.between(after, until)):
        for start in range(0, len(part.timestamps), TICKS_AT_ONCE):
            timestamps = part.timestamps[start : start + TICKS_AT_ONCE]
            prices = part.prices[start : start + TICKS_AT_ONCE]
            index, statistics = sliding.advance(index, history, timestamps, prices)
            if timestamps[0] > after:
                z_scores = zscore_join.z_scores(prices, statistics.averages, statistics.deviations)
                yield Scored(timestamps, statistics, z_scores)


def waits(ticks: Ticks, after: int, until: int, watermark: int) -> Waits:
    """The answers for the ticks in (after, until] that are certain once all ticks up to `watermark` are known."""
    seen = ticks.between(after, min(until + PASSAGE_HORIZON_MS, watermark))
    answered = first_passage.advance(first_passage.NONE_WAITING, *seen, watermark, PASSAGE_HORIZON_MS)
    return Waits(_up_to(until, answered.higher), _up_to(until, answered.lower))


def _up_to(until: int, answers: first_passage.Answers) -> first_passage.Answers:
    end = int(np.searchsorted(answers.timestamps, until, side="right"))
    return first_passage.Answers(answers.timestamps[:end], answers.waits[:end])


class _Memory:
    """`sliding.Chunks` in memory."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytes] = {}

    def load(self, minute: int) -> bytes:
        return self._chunks[minute]

    def store(self, minute: int, chunk: bytes) -> None:
        self._chunks[minute] = chunk

    def remove(self, minute: int) -> None:
        del self._chunks[minute]
