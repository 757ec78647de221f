"""Counting what is in a recording: what is no tick, and what becomes of the ticks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from producer.recordings.tally import Tally
from tickhouse.contract.arrays import Integers
from tickhouse.contract.batch_validation import ValidationResult
from tickhouse.contract.validation import MAXIMUM_LEAD_MS, Rejection, read_tick

_TICKS_AT_ONCE = 10_000
_AHEAD = f"timestamp: more than {MAXIMUM_LEAD_MS // 1_000} s ahead when sent"


class Numbers(NamedTuple):
    """What was counted of lines that are to be sent, or have been."""

    lines: int
    rejects: int
    """Lines that are no ticks, or are when they are sent too far ahead of the clock."""
    first_reject: tuple[int, str] | None
    """The number of the first of these, from 1, and why."""
    symbols: list[str]
    ticks: int
    first_ms: int | None
    last_ms: int | None
    late: int
    late_for_good: int
    duplicates: int
    waiting: int

    @property
    def final(self) -> int:
        """Distinct ticks in time that no other can change any more: those with results."""
        return self.ticks - self.late - self.duplicates - self.waiting


class Count:
    """Counts lines of a recording in their order."""

    def __init__(self, lateness_ms: int, stored: Mapping[str, Integers]) -> None:
        self._tally = Tally(lateness_ms, stored)
        self._lines = 0
        self._rejects = 0
        self._first_reject: tuple[int, str] | None = None
        self._ticks: dict[bytes, list[int]] = {}
        """Ticks that came one by one and are still to be counted, by symbol."""
        self._uncounted = 0

    def add(self, number: int, verdicts: ValidationResult, timestamps: Integers, sent_ms: Integers) -> None:
        """Count consecutive lines, the first of which has this number; `timestamps` are as they are sent."""
        self._lines += len(timestamps)
        ahead = timestamps > sent_ms + MAXIMUM_LEAD_MS
        for symbol, positions in verdicts.ticks_by_symbol():
            self._tally.add(symbol, timestamps[positions[~ahead[positions]]])
        ahead &= verdicts.of_symbol >= 0
        self._rejects += len(verdicts.reasons) + int(ahead.sum())
        if self._first_reject is None:
            reasons = verdicts.reasons | dict.fromkeys(ahead.nonzero()[0].tolist(), _AHEAD)
            if reasons:
                first = min(reasons)
                self._first_reject = number + first, reasons[first]

    def add_line(self, number: int, line: bytes, symbol: bytes | None, timestamp: int | None, sent_ms: int) -> None:
        """Count one line; `timestamp` is that of a tick as it is sent, None for a line that is no tick."""
        self._lines += 1
        if symbol is not None and timestamp is not None and timestamp <= sent_ms + MAXIMUM_LEAD_MS:
            self._ticks.setdefault(symbol, []).append(timestamp)
            self._uncounted += 1
            if self._uncounted >= _TICKS_AT_ONCE:
                self._count_ticks()
            return
        self._rejects += 1
        if self._first_reject is None:
            verdict = read_tick(line)
            self._first_reject = number, verdict.reason if isinstance(verdict, Rejection) else _AHEAD

    def _count_ticks(self) -> None:
        for symbol, timestamps in self._ticks.items():
            self._tally.add(symbol.decode(), np.array(timestamps, dtype=np.int64))
        self._ticks, self._uncounted = {}, 0

    def numbers(self) -> Numbers:
        """What was counted so far."""
        self._count_ticks()
        tally = self._tally
        return Numbers(
            self._lines,
            self._rejects,
            self._first_reject,
            sorted(tally.symbols),
            tally.ticks,
            tally.first_ms,
            tally.last_ms,
            tally.late,
            tally.late_for_good,
            tally.duplicates,
            tally.waiting,
        )
