"""Time to the first strictly higher and first strictly lower price of one symbol: pure functions on arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickhouse.contract.arrays import Integers

NONE_YET = -1


def first_higher(timestamps: Integers, prices: Integers, horizon_ms: int) -> Integers:
    """Milliseconds from each tick to the first later one with a strictly higher price at most `horizon_ms` after it.

    `timestamps` increase strictly. `NONE_YET` where the given ticks hold none. The ticks that still wait form a
    stack of non-increasing prices (the classic next-greater-element scan), so the whole costs O(n). The first
    strictly lower price is the first higher one of the negated prices.
    """
    waits = np.full(len(timestamps), NONE_YET, dtype=np.int64)
    times = timestamps.tolist()
    waiting: list[int] = []
    waiting_prices: list[int] = []
    found: list[int] = []
    found_waits: list[int] = []
    for position, price in enumerate(prices.tolist()):
        while waiting and price > waiting_prices[-1]:
            waiting_prices.pop()
            earlier = waiting.pop()
            wait = times[position] - times[earlier]
            if wait <= horizon_ms:
                found.append(earlier)
                found_waits.append(wait)
        waiting.append(position)
        waiting_prices.append(price)
    waits[found] = found_waits
    return waits


class Waiting(NamedTuple):
    """Final ticks of one symbol whose answer in a direction is still open; all arrays have shape (n,)."""

    timestamps: Integers
    prices: Integers
    higher: npt.NDArray[np.bool_]
    """Where the higher answer is still open."""
    lower: npt.NDArray[np.bool_]
    """Where the lower answer is still open."""

    def to_bytes(self) -> bytes:
        """For keeping in state."""
        return np.stack((self.timestamps, self.prices, self.higher, self.lower)).astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, state: bytes) -> Waiting:
        """What `to_bytes` gave."""
        timestamps, prices, higher, lower = np.frombuffer(state, dtype="<i8").reshape(4, -1)
        return cls(timestamps, prices, higher.astype(bool), lower.astype(bool))


NONE_WAITING = Waiting(
    np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
)


class Answers(NamedTuple):
    """Answers of one direction: the ticks' timestamps and the waits, in milliseconds, both of shape (n,)."""

    timestamps: Integers
    waits: Integers


class Passages(NamedTuple):
    """What an advance of the watermark has made certain."""

    waiting: Waiting
    higher: Answers
    lower: Answers


def advance(waiting: Waiting, timestamps: Integers, prices: Integers, watermark: int, horizon_ms: int) -> Passages:
    """Answer what has become certain once all ticks up to `watermark` (milliseconds) are known.

    `timestamps` and `prices` are the ticks that became final since the last call, after all in `waiting`. A tick with
    no hit within the horizon is answered with the horizon itself once the watermark has reached its end.
    """
    open_to_both = np.ones(len(timestamps), dtype=bool)
    everything = Waiting(
        np.concatenate((waiting.timestamps, timestamps)),
        np.concatenate((waiting.prices, prices)),
        np.concatenate((waiting.higher, open_to_both)),
        np.concatenate((waiting.lower, open_to_both)),
    )
    expired = everything.timestamps + horizon_ms <= watermark
    higher, higher_open = _answer(everything.timestamps, everything.prices, everything.higher, expired, horizon_ms)
    lower, lower_open = _answer(everything.timestamps, -everything.prices, everything.lower, expired, horizon_ms)
    kept = higher_open | lower_open
    still = Waiting(everything.timestamps[kept], everything.prices[kept], higher_open[kept], lower_open[kept])
    return Passages(still, higher, lower)


def _answer(
    timestamps: Integers,
    prices: Integers,
    is_open: npt.NDArray[np.bool_],
    expired: npt.NDArray[np.bool_],
    horizon_ms: int,
) -> tuple[Answers, npt.NDArray[np.bool_]]:
    waits = first_higher(timestamps, prices, horizon_ms)
    waits = np.where((waits == NONE_YET) & expired, horizon_ms, waits)
    certain = is_open & (waits != NONE_YET)
    return Answers(timestamps[certain], waits[certain]), is_open & ~certain
