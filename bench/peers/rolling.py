"""What a careful user of a Python stream library writes for this work: sliding windows of one symbol, tick by tick.

For the peers written in Python, which import it beside their own program; knows no stream library and nothing of this
project. Ticks wait for those that are still on time, each final tick then enters six running sums, and leaves each when
its window has passed. Sums are integers of Python's, so they are exact at any age.

Where ticks of the last hour are kept is the library's part: a `history` with `put`, `get` and `remove`.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from math import sqrt
from typing import Protocol

WINDOWS = (("30s", 30_000), ("1m", 60_000), ("5m", 300_000), ("15m", 900_000), ("30m", 1_800_000), ("1h", 3_600_000))
LATENESS_MS = 10_000
SCALE = 10**8
_LENGTHS = tuple(length for _, length in WINDOWS)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class History(Protocol):
    """Ticks by their number: (timestamp in ms, price in 1e-8 units)."""

    def put(self, number: int, tick: tuple[int, int]) -> None: ...

    def get(self, number: int) -> tuple[int, int]: ...

    def remove(self, number: int) -> None: ...


class Rolling:
    """The state of one symbol, without its history. Everything in it is plain data, so it can be pickled."""

    __slots__ = ("head", "largest", "last", "squares", "tails", "totals", "waiting")

    def __init__(self) -> None:
        self.largest: int | None = None
        self.last: int | None = None
        self.waiting: list[tuple[int, int]] = []
        self.head = 0
        self.tails = [0] * len(WINDOWS)
        self.totals = [0] * len(WINDOWS)
        self.squares = [0] * len(WINDOWS)

    def __getstate__(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        for name, value in zip(self.__slots__, state, strict=True):
            setattr(self, name, value)

    def add(
        self, history: History, timestamp: int, units: int
    ) -> Iterator[tuple[int, int, list[tuple[int, int, int]]]]:
        """Take a tick in; gives, for each tick that is final now, its timestamp, its price and its six sums."""
        if self.largest is not None and timestamp < self.largest - LATENESS_MS:
            return  # late
        place = bisect_left(self.waiting, (timestamp,))
        if timestamp == self.last or (place < len(self.waiting) and self.waiting[place][0] == timestamp):
            return  # a duplicate
        insort(self.waiting, (timestamp, units))
        if self.largest is None or timestamp > self.largest:
            self.largest = timestamp
        settled = self.largest - LATENESS_MS
        done = 0
        while done < len(self.waiting) and self.waiting[done][0] <= settled:
            yield self._advance(history, *self.waiting[done])
            done += 1
        if done:
            del self.waiting[:done]

    def _advance(self, history: History, timestamp: int, units: int) -> tuple[int, int, list[tuple[int, int, int]]]:
        self.last = timestamp
        history.put(self.head, (timestamp, units))
        self.head += 1
        square = units * units
        sums = []
        for position, length in enumerate(_LENGTHS):
            total, squares = self.totals[position] + units, self.squares[position] + square
            tail, begin = self.tails[position], timestamp - length
            while True:
                old_timestamp, old_units = history.get(tail)
                if old_timestamp > begin:
                    break
                total -= old_units
                squares -= old_units * old_units
                if length == _LENGTHS[-1]:
                    history.remove(tail)
                tail += 1
            self.totals[position], self.squares[position], self.tails[position] = total, squares, tail
            sums.append((self.head - tail, total, squares))
        return timestamp, units, sums


def read_tick(value: bytes) -> tuple[str, int, int]:
    """Symbol, timestamp in ms and price in 1e-8 units of a message."""
    message = json.loads(value, parse_float=Decimal)
    elapsed = datetime.fromisoformat(message["timestamp"]) - _EPOCH
    timestamp = (elapsed.days * 86_400 + elapsed.seconds) * 1_000 + elapsed.microseconds // 1_000
    return message["symbol"], timestamp, int(Decimal(message["price"]).scaleb(8))


def messages(symbol: str, timestamp: int, units: int, sums: list[tuple[int, int, int]]) -> tuple[bytes, bytes]:
    """The two messages of a tick: its statistics and its z-scores."""
    moment = datetime.fromtimestamp(timestamp // 1_000, UTC)
    head = f'{{"timestamp":"{moment:%Y-%m-%dT%H:%M:%S}.{timestamp % 1_000:03}Z","symbol":"{symbol}",'
    statistics, scores = [], []
    for (name, _), (count, total, squares) in zip(WINDOWS, sums, strict=True):
        spread = count * squares - total * total
        deviation = sqrt(spread / (count * (count - 1))) / SCALE if count > 1 else None
        score = (count * units - total) / sqrt(count * spread / (count - 1)) if spread else None
        shown = "null" if deviation is None else repr(deviation)
        statistics.append(
            f'{{"window":"{name}","avg_price":{total / (count * SCALE)!r},"std_price":{shown},"count":{count}}}'
        )
        scores.append(f'{{"window":"{name}","zscore_price":{"null" if score is None else repr(score)}}}')
    return (
        f'{head}"stats":[{",".join(statistics)}]}}'.encode(),
        f'{head}"z_scores":[{",".join(scores)}]}}'.encode(),
    )
