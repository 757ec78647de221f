"""What a tick costs this project against the length of the longest window and the number of symbols, and its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np

from bench.limits import SymbolKernel, blocks, kernels
from bench.rates import rounded
from bench.ticks import STEP_MS, Walk, random_walk
from spark_jobs.compute import sliding

HOURS = (1, 3, 6, 12, 24)
SYMBOLS = (1, 8, 100, 2_000)
_HOUR_MS = 3_600_000
_LIVE_BATCH = 20
"""Ticks of a symbol in a live micro-batch: two seconds."""


def against_windows(seed: int, seconds: float, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """For longest windows from one hour to a day: microseconds a tick in a backlog and in live micro-batches, once the
    window is full, and bytes of state per symbol."""
    rows = []
    for hours in HOURS:
        tell(f"longest window {hours} h")
        # The windows are part of the contract, not a setting: here alone they are of other lengths.
        lengths = np.array([*sliding._LENGTHS[:-1], hours * _HOUR_MS], dtype=np.int64)
        with mock.patch.multiple(sliding, _LENGTHS=lengths, _LONGEST_MS=hours * _HOUR_MS):
            rows.append(
                {"hours": hours, **_full_window(random_walk(seed, 1, hours * _HOUR_MS // STEP_MS + 60_000), seconds)}
            )
    return rows


def _full_window(walk: Walk, seconds: float) -> dict[str, Any]:
    symbol = SymbolKernel()
    timestamps, prices = walk.timestamps, walk.units()[:, 0].copy()
    begin = len(timestamps) - 60_000
    for first in range(0, begin, 100_000):
        last = min(first + 100_000, begin)
        symbol.take(timestamps[first:last], prices[first:last])
    live = _microseconds(symbol, timestamps, prices, range(begin, begin + 10_000, _LIVE_BATCH), seconds)
    state = symbol.state_bytes
    backlog = _microseconds(symbol, timestamps, prices, range(begin + 10_000, begin + 60_000, 12_500), seconds)
    return {
        "backlog_microseconds": rounded(backlog),
        "live_microseconds": rounded(live),
        "state_bytes": state,
    }


def _microseconds(symbol: SymbolKernel, timestamps: Any, prices: Any, firsts: Sequence[int], seconds: float) -> float:
    import time

    step = firsts[1] - firsts[0]
    spent: list[float] = []
    for first in firsts:
        began = time.perf_counter()
        symbol.take(timestamps[first : first + step], prices[first : first + step])
        spent.append(time.perf_counter() - began)
        if sum(spent) > seconds:
            break
    # The median: a shared machine stops a program now and then.
    return float(np.median(spent)) / step * 1e6


def against_symbols(seed: int, ticks: int, seconds: float, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """For 1 to 2,000 symbols: microseconds a tick of the kernels in a backlog of `ticks`."""
    rows = []
    for symbols in SYMBOLS:
        tell(f"{symbols} symbols")
        rows.append(
            {"symbols": symbols, "microseconds": rounded(1e6 / kernels(random_walk(seed, symbols, ticks), seconds))}
        )
    return rows


def state_of_hour(seed: int) -> int:
    """Bytes of state of one symbol after two hours at ten ticks a second: no more than after one."""
    symbol = SymbolKernel()
    for timestamps, units in blocks(random_walk(seed, 1, 2 * _HOUR_MS // STEP_MS)):
        symbol.take(timestamps, np.ascontiguousarray(units[:, 0]))
    return symbol.state_bytes
