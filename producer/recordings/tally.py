"""What becomes of ticks in their order: how many are late, how many repeat another, how many wait for later ones.

The rule is that of the streams, symbol by symbol and in offset order, so it can be told before a message is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tickhouse.contract.arrays import Integers

_NONE: Integers = np.empty(0, dtype=np.int64)


class Recent(NamedTuple):
    """Of one symbol, the distinct timestamps within the lateness of its largest, in milliseconds, ascending."""

    times: Integers
    own: Integers
    """Those among them that were counted here and are not final."""


class Tally:
    """Counts ticks that come after those of which the topic has `stored` the recent timestamps."""

    def __init__(self, lateness_ms: int, stored: Mapping[str, Integers]) -> None:
        self._lateness_ms = lateness_ms
        self._stored = stored
        self._recent: dict[str, Recent] = {}
        self.symbols: set[str] = set()
        self.ticks = 0
        self.late = 0
        """Ticks that have no results, as a larger timestamp of their symbol came before."""
        self.late_for_good = 0
        """Those of them that are late in any order: what makes them late is on the topic already."""
        self.duplicates = 0
        """Ticks in time whose identity an earlier one has."""
        self.first_ms: int | None = None
        self.last_ms: int | None = None

    def add(self, symbol: str, times: Integers) -> None:
        """Count some ticks of a symbol, in their order."""
        if not len(times):
            return
        self.symbols.add(symbol)
        self.ticks += len(times)
        least, most = int(times.min()), int(times.max())
        self.first_ms = least if self.first_ms is None else min(self.first_ms, least)
        self.last_ms = most if self.last_ms is None else max(self.last_ms, most)
        recent, own = self._recent.get(symbol) or Recent(self._stored.get(symbol, _NONE), _NONE)
        stored = self._stored.get(symbol, _NONE)
        if len(stored):
            self.late_for_good += int((times < stored[-1] - self._lateness_ms).sum())
        before = np.maximum.accumulate(np.concatenate((recent[-1:] if len(recent) else times[:1], times)))[:-1]
        in_time = times[times >= before - self._lateness_ms]
        self.late += len(times) - len(in_time)
        new = np.setdiff1d(in_time, recent)
        self.duplicates += len(in_time) - len(new)
        if not len(new):
            return
        recent = np.union1d(recent, new)
        own = np.union1d(own, new)
        bound = recent[-1] - self._lateness_ms
        self._recent[symbol] = Recent(recent[recent >= bound], own[own > bound])

    @property
    def waiting(self) -> int:
        """Distinct ticks counted here to which none of their symbol is later by the lateness."""
        return sum(len(recent.own) for recent in self._recent.values())

    def recent(self) -> dict[str, Integers]:
        """The recent timestamps of each symbol, for another tally to go on with."""
        return {symbol: recent.times for symbol, recent in self._recent.items()}
