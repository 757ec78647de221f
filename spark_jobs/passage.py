"""Time to the first strictly higher and first strictly lower price of one symbol: pure functions on arrays.

Belongs here: the search. Does not belong here: finality and state (`operators`), message forms (`contract`).
"""

from __future__ import annotations

import numpy as np

from spark_jobs.contract import Integers

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
