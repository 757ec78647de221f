"""Ticks of one symbol joined to their window statistics on equal timestamps, and the z-scores that follow.

Prices wait for their statistics in one-minute chunks, so that a backlog on one side does not make each update
rewrite all that waits. There is one statistic for each price, so a chunk is done with when as many have come: in
whatever order, as a topic whose partitions were increased does not give a symbol's statistics in that of time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spark_jobs.compute.sliding import CHUNK_MS, Chunks, decode_chunk, encode_chunk
from tickhouse.contract.arrays import Floats, Integers
from tickhouse.contract.names import PRICE_SCALE, WINDOWS


class Scores(NamedTuple):
    """z-scores of n ticks: `timestamps` (n,) in milliseconds, `z_scores` (windows, n), NaN where there is none."""

    timestamps: Integers
    z_scores: Floats


class Unmatched(NamedTuple):
    """Statistics whose tick has not been seen yet: `timestamps` (n,), the others (windows, n)."""

    timestamps: Integers
    averages: Floats
    deviations: Floats

    def to_bytes(self) -> bytes:
        """For keeping in state."""
        rows = [self.timestamps.astype("<i8").view("<f8"), *self.averages, *self.deviations]
        return np.stack(rows).astype("<f8").tobytes()

    @classmethod
    def from_bytes(cls, state: bytes) -> Unmatched:
        """What `to_bytes` gave."""
        rows = np.frombuffer(state, dtype="<f8").reshape(1 + 2 * len(WINDOWS), -1)
        return cls(rows[0].view("<i8"), rows[1 : 1 + len(WINDOWS)], rows[1 + len(WINDOWS) :])


NONE_UNMATCHED = Unmatched(np.zeros(0, dtype=np.int64), np.zeros((len(WINDOWS), 0)), np.zeros((len(WINDOWS), 0)))


class Chunked(NamedTuple):
    """The chunks of prices that there are: their minutes, increasing, and how many of the prices in each still wait."""

    minutes: Integers
    waiting: Integers

    def to_bytes(self) -> bytes:
        """For keeping in state."""
        return np.stack((self.minutes, self.waiting)).astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, state: bytes) -> Chunked:
        """What `to_bytes` gave."""
        return cls(*np.frombuffer(state, dtype="<i8").reshape(2, -1))

    @classmethod
    def uncounted(cls, minutes: Integers) -> Chunked:
        """Chunks of which it is not known how many prices wait, as an earlier version kept them."""
        return cls(minutes, np.full(len(minutes), _UNCOUNTED, dtype=np.int64))

    def plus(self, minutes: Integers) -> Chunked:
        """With more prices, of which these are the minutes."""
        times, counts = np.unique(minutes, return_counts=True)
        every = np.union1d(self.minutes, times)
        waiting = np.zeros(len(every), dtype=np.int64)
        waiting[np.searchsorted(every, self.minutes)] = self.waiting
        place = np.searchsorted(every, times)
        waiting[place] = np.where(waiting[place] == _UNCOUNTED, _UNCOUNTED, waiting[place] + counts)
        return Chunked(every, waiting)


_UNCOUNTED = -1


def keep_prices(kept: Chunked, chunks: Chunks, timestamps: Integers, prices: Integers) -> Chunked:
    """Add distinct ticks (any order; milliseconds and 1e-8 units, shape (n,)) to those that wait; returns all."""
    tick_minutes = timestamps // CHUNK_MS
    for minute in np.unique(tick_minutes).tolist():
        inside = tick_minutes == minute
        some_timestamps, some_prices = timestamps[inside], prices[inside]
        if minute in kept.minutes:
            old_timestamps, old_prices = decode_chunk(chunks.load(minute))
            some_timestamps = np.concatenate((old_timestamps, some_timestamps))
            some_prices = np.concatenate((old_prices, some_prices))
        order = np.argsort(some_timestamps)
        chunks.store(minute, encode_chunk(some_timestamps[order], some_prices[order]))
    return kept.plus(tick_minutes)


def match(kept: Chunked, chunks: Chunks, statistics: Unmatched) -> tuple[Chunked, Unmatched, Scores]:
    """Join statistics, in any order, to the prices that wait.

    Returns what is kept, the statistics whose tick has yet to come, and the z-scores in the order of the statistics.
    """
    wanted_minutes = statistics.timestamps // CHUNK_MS
    prices = np.zeros(len(statistics.timestamps), dtype=np.int64)
    found = np.zeros(len(statistics.timestamps), dtype=bool)
    waiting = kept.waiting.copy()
    for minute in np.intersect1d(wanted_minutes, kept.minutes).tolist():
        chunk_timestamps, chunk_prices = decode_chunk(chunks.load(minute))
        asked = np.flatnonzero(wanted_minutes == minute)
        position = np.searchsorted(chunk_timestamps, statistics.timestamps[asked])
        position = np.minimum(position, len(chunk_timestamps) - 1)
        hit = chunk_timestamps[position] == statistics.timestamps[asked]
        prices[asked[hit]] = chunk_prices[position[hit]]
        found[asked] = hit
        place = np.searchsorted(kept.minutes, minute)
        if waiting[place] != _UNCOUNTED:
            waiting[place] -= hit.sum()
    scores = Scores(
        statistics.timestamps[found],
        z_scores(prices[found], statistics.averages[:, found], statistics.deviations[:, found]),
    )
    latest = scores.timestamps.max(initial=-1) // CHUNK_MS
    done = np.where(waiting == _UNCOUNTED, kept.minutes < latest, waiting <= 0)
    for minute in kept.minutes[done].tolist():
        chunks.remove(minute)
    left = Unmatched(statistics.timestamps[~found], statistics.averages[:, ~found], statistics.deviations[:, ~found])
    return Chunked(kept.minutes[~done], waiting[~done]), left, scores


def z_scores(prices: Integers, averages: Floats, deviations: Floats) -> Floats:
    """The z-scores of n ticks: `prices` (n,) in 1e-8 units, all else (windows, n); NaN where there is none."""
    whole, part = np.divmod(prices, PRICE_SCALE)
    price = whole + part / PRICE_SCALE
    spread = np.where(deviations > 0, deviations, np.nan)
    return (price - averages) / spread
