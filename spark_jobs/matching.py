"""Ticks of one symbol joined to their window statistics on equal timestamps, and the z-scores that follow.

Belongs here: the join and the arithmetic, as functions on arrays. Does not belong here: which ticks count
(`ordering`), the statistics themselves (`sliding`), message forms (`contract`).

Prices wait for their statistics in one-minute chunks, so that a backlog on one side does not make each update
rewrite all that waits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spark_jobs.sliding import CHUNK_MS, Chunks, decode_chunk, encode_chunk
from tickhouse.contract.arrays import Floats, Integers
from tickhouse.contract.names import PRICE_SCALE, WINDOWS


class Scores(NamedTuple):
    """z-scores of n ticks: `timestamps` (n,) in milliseconds, `z_scores` (windows, n), NaN where there is none."""

    timestamps: Integers
    z_scores: Floats


class Unmatched(NamedTuple):
    """Statistics whose tick has not been seen yet: `timestamps` (n,) increasing, the others (windows, n)."""

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


def keep_prices(minutes: Integers, chunks: Chunks, timestamps: Integers, prices: Integers) -> Integers:
    """Add distinct ticks (any order; milliseconds and 1e-8 units, shape (n,)) to those that wait.

    `minutes` lists the chunks that there are, increasing; returns the new list.
    """
    tick_minutes = timestamps // CHUNK_MS
    for minute in np.unique(tick_minutes).tolist():
        inside = tick_minutes == minute
        some_timestamps, some_prices = timestamps[inside], prices[inside]
        if minute in minutes:
            old_timestamps, old_prices = decode_chunk(chunks.load(minute))
            some_timestamps = np.concatenate((old_timestamps, some_timestamps))
            some_prices = np.concatenate((old_prices, some_prices))
        order = np.argsort(some_timestamps)
        chunks.store(minute, encode_chunk(some_timestamps[order], some_prices[order]))
    return np.union1d(minutes, tick_minutes)


def match(minutes: Integers, chunks: Chunks, statistics: Unmatched) -> tuple[Integers, Unmatched, Scores]:
    """Join statistics to the prices that wait.

    `statistics` come in time order, over all calls, and there is one for each tick that counts: so once those of a
    minute have been joined, all chunks before that minute are done with and removed. Returns the list of chunks
    left, the statistics whose tick has yet to come, and the z-scores.
    """
    wanted_minutes = statistics.timestamps // CHUNK_MS
    prices = np.zeros(len(statistics.timestamps), dtype=np.int64)
    found = np.zeros(len(statistics.timestamps), dtype=bool)
    for minute in np.intersect1d(wanted_minutes, minutes).tolist():
        chunk_timestamps, chunk_prices = decode_chunk(chunks.load(minute))
        asked = np.flatnonzero(wanted_minutes == minute)
        position = np.searchsorted(chunk_timestamps, statistics.timestamps[asked])
        position = np.minimum(position, len(chunk_timestamps) - 1)
        hit = chunk_timestamps[position] == statistics.timestamps[asked]
        prices[asked[hit]] = chunk_prices[position[hit]]
        found[asked] = hit
    scores = Scores(
        statistics.timestamps[found],
        z_scores(prices[found], statistics.averages[:, found], statistics.deviations[:, found]),
    )
    if len(scores.timestamps):
        done = minutes < scores.timestamps[-1] // CHUNK_MS
        for minute in minutes[done].tolist():
            chunks.remove(minute)
        minutes = minutes[~done]
    left = Unmatched(statistics.timestamps[~found], statistics.averages[:, ~found], statistics.deviations[:, ~found])
    return minutes, left, scores


def z_scores(prices: Integers, averages: Floats, deviations: Floats) -> Floats:
    """The z-scores of n ticks: `prices` (n,) in 1e-8 units, all else (windows, n); NaN where there is none."""
    whole, part = np.divmod(prices, PRICE_SCALE)
    price = whole + part / PRICE_SCALE
    spread = np.where(deviations > 0, deviations, np.nan)
    return (price - averages) / spread
