"""The ticks of a comparison: a seeded random walk of any number of symbols, ten ticks a second each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

STEP_MS = 100
START_MS = 1_746_662_400_000  # 2025-05-08T00:00:00Z
UNITS_PER_CENT = 1_000_000
"""Prices are handled in 1e-8 units, as everywhere in this project, and move on a grid of a cent."""
_MOST_CENTS_A_STEP = 150
_LEAST_CENTS = 100


class Walk(NamedTuple):
    """Prices of `len(names)` symbols at `steps` moments."""

    names: list[str]
    timestamps: Integers
    """Milliseconds since the epoch, shape (steps,)."""
    cents: Integers
    """Shape (steps, symbols)."""

    @property
    def ticks(self) -> int:
        """How many ticks that is."""
        return int(self.cents.size)

    def units(self) -> Integers:
        """Prices in 1e-8 units, shape (steps, symbols)."""
        return self.cents * UNITS_PER_CENT


class Payload(NamedTuple):
    """One message of the price topic."""

    symbol: int
    """Position of the symbol in the walk, which also decides the partition."""
    key: bytes
    value: bytes


def names(count: int) -> list[str]:
    """Names of `count` symbols."""
    return [f"SYM{number:04}USDT" for number in range(count)]


def random_walk(seed: int, symbols: int, ticks: int, start_ms: int = START_MS) -> Walk:
    """About `ticks` ticks in all, the same number for each symbol, at least one. The same arguments, the same walk."""
    random = np.random.default_rng(seed)
    steps = max(1, ticks // symbols)
    first = random.integers(10_000, 10_000_000, size=symbols)
    moves = random.integers(-_MOST_CENTS_A_STEP, _MOST_CENTS_A_STEP + 1, size=(steps, symbols))
    # Reflected at one unit of the currency: a price stays positive.
    cents = np.abs(first + np.cumsum(moves, axis=0) - _LEAST_CENTS) + _LEAST_CENTS
    return Walk(names(symbols), start_ms + STEP_MS * np.arange(steps, dtype=np.int64), cents)


def value_of(symbol: str, cents: int, timestamp: str) -> bytes:
    """A message as the project's producer writes it; `timestamp` in RFC 3339."""
    return f'{{"symbol":"{symbol}","price":{cents / 100!r},"timestamp":"{timestamp}"}}'.encode()


def timestamp_texts(timestamps: Integers) -> list[str]:
    """Milliseconds since the epoch as `2025-05-08T04:12:38.300000+00:00`."""
    texts: list[str] = np.datetime_as_string(timestamps.astype("datetime64[ms]"), unit="us").tolist()
    return [f"{text}+00:00" for text in texts]


def payloads(walk: Walk) -> Iterator[Payload]:
    """All messages, in the order in which an exchange would send them: moment by moment."""
    keys = [name.encode() for name in walk.names]
    for text, row in zip(timestamp_texts(walk.timestamps), walk.cents, strict=True):
        for symbol, cents in enumerate(row.tolist()):
            yield Payload(symbol, keys[symbol], value_of(walk.names[symbol], cents, text))


def final_statistics(walk: Walk, lateness_ms: int) -> int:
    """How many ticks of an ordered walk have statistics and z-scores that are final."""
    settled = walk.timestamps <= walk.timestamps[-1] - lateness_ms
    return int(settled.sum()) * len(walk.names)


def final_passages(walk: Walk, lateness_ms: int, horizon_ms: int) -> int:
    """How many have a first higher and a first lower price that are final whatever the prices were."""
    return final_statistics(walk, lateness_ms + horizon_ms)
